"""Rank the tiles of images each by itself, for models that cut images into tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunecal.strategies import Images, rank_many

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def in_turn(
    family: str, images: Images, tiles: Sequence[Tensor], variants: list[dict[str, Any]]
) -> list[Tensor]:
    """Return orders in which the tiles of an image, each ranked by itself, take turns.

    Each budget then keeps equally many tokens of every tile, as long as it has some left.

    Args:
        family: the strategy's name.
        images: whose tokens are ranked.
        tiles: of each image int32 [N], the tile of each token.
        variants: settings of the strategy.

    Returns:
        int64 [B, N] for each variant.
    """
    import torch

    orders: list[list[Tensor]] = [[] for _ in variants]
    for number, tile in enumerate(tiles):
        members = [(tile == one).nonzero().flatten() for one in tile.unique()]
        turns = torch.cat([torch.arange(len(own)) for own in members]).argsort(stable=True)
        ranked = [
            rank_many(
                family,
                images.features[number : number + 1, own],
                images.saliency[number : number + 1, own],
                len(own),
                variants,
                images.ids and [f"{images.ids[number]}, tile {at}"],
            )
            for at, own in enumerate(members)
        ]
        for variant, one in enumerate(orders):
            pairs = zip(members, ranked, strict=True)
            one.append(torch.cat([own[order[variant][0]] for own, order in pairs])[turns])
    return [torch.stack(one) for one in orders]
