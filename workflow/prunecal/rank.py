"""Stage `rank`: the visual tokens that a strategy keeps of every image, or how it merges them.

Writes, for each variant of a strategy, `order` int16 [I, N] and `coverage` float32 [I, N]: the
evidence coverage of the first 1 ... N tokens of that order. Every budget is a prefix. Where images
have different numbers of tokens, both are flattened, and `tokens` and `layout` are those of the
features.

If budgets are not nested, there are instead for each budget K `kept/K` int16 [I, K], flattened as
above, and `covered/K` float32 [I]; of a strategy that merges, instead of `kept`, the weights of CLS
and the patches in each token: `places/K` int64, flat places in the arrays [K, N + 1] of all images,
ascending, and `weight/K` float32.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prunecal.core import cli, plugins
from prunecal.core.errors import PrunecalError
from prunecal.engine import device
from prunecal.engine.coverage import (
    cosine_similarity,
    coverage,
    coverage_curve,
    coverage_of_tokens,
)
from prunecal.storage import files
from prunecal.storage.per_image import TILES, PerImage, grids_of, starts_of_weights, together
from prunecal.strategies import Images, merge_many, rank_many
from prunecal.study.budgets import kept_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from numpy.typing import NDArray
    from torch import Tensor

BATCH = 32  # images at a time
ENTRIES = 2**25  # of the similarity matrices held at a time


@dataclass(frozen=True)
class Encoded:
    """The images of a data set as `encode` wrote them, and what a strategy reads of them."""

    ids: list[str]
    features: PerImage
    saliency: PerImage
    signals: dict[str, Tensor]
    grids: list[tuple[tuple[int, int], ...]]
    tiles: PerImage | None

    def some(self, batch: list[int]) -> Images:
        """Return some images of equal numbers of tokens."""
        import torch

        return Images(
            torch.stack([self.features[image] for image in batch]).float(),
            torch.stack([self.saliency[image] for image in batch]),
            [self.ids[image] for image in batch],
            {name: values[batch].float() for name, values in self.signals.items()},
            self.grids[batch[0]],
        )


def main(arguments: argparse.Namespace) -> None:
    """Rank all images of a data set for all variants of a strategy."""
    import torch

    device.pick("cpu", arguments.threads)
    variants = json.loads(arguments.variants)
    strategy = plugins.load("strategies", arguments.family)
    what = f"rank {strategy.LABEL}"
    file = files.open_arrays(arguments.features, framework="pt")
    ids = file.facts["image_id"]
    encoded = Encoded(
        ids,
        PerImage(file, "features"),
        PerImage(file, "saliency"),
        _signals(strategy, arguments.signals, ids),
        grids_of(file, len(ids)),
        PerImage(file, TILES) if TILES in file.keys() else None,  # noqa: SIM118  not a mapping
    )
    layout = {"layout": file.get_tensor("layout").numpy()} if "layout" in file.keys() else {}  # noqa: SIM118
    if arguments.budgets:
        _rank_budgets(arguments, strategy, variants, encoded, layout)
        return
    ranked: list[dict[int, tuple[Any, Any]]] = [{} for _ in variants]  # by image
    batches = _batches(encoded)
    for batch in cli.progress(batches, total=len(batches), what=what, unit="batch"):
        images = encoded.some(batch)
        similarity = cosine_similarity(images.features)
        if encoded.tiles is None:
            orders = rank_many(*_given(arguments.family, images, None, variants))
        else:
            tiles = [encoded.tiles[image] for image in batch]
            orders = _in_turn(arguments.family, images, tiles, variants)
        for variant, order in enumerate(orders):
            coverage = coverage_curve(similarity, order).numpy()
            pairs = zip(order.to(torch.int16).numpy(), coverage, strict=True)
            ranked[variant] |= zip(batch, pairs, strict=True)
    for variant, (parameters, path) in enumerate(zip(variants, arguments.out, strict=True)):
        orders, coverages = zip(*(ranked[variant][at] for at in range(len(ids))), strict=True)
        flat = together(orders)
        arrays = {"order": flat.values, "coverage": together(coverages).values, **layout}
        if flat.tokens is not None:
            arrays["tokens"] = flat.tokens
        facts = {"image_id": ids, "family": arguments.family, "parameters": parameters}
        files.write_arrays(path, arrays, facts, [arguments.features, *arguments.signals])


def _in_turn(
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


def _signals(strategy: ModuleType, paths: Sequence[Path], ids: list[str]) -> dict[str, Tensor]:
    """Read what a strategy reads beside features and saliency, by its own names.

    Raises:
        PrunecalError: a file is missing, or is of other images.
    """
    by_name = {path.stem: path for path in paths}
    signals = {}
    for name, signal in plugins.declared("strategies", strategy, "READS").items():
        if signal not in by_name:
            raise PrunecalError(f"rank: --signals lacks {signal}.safetensors, which is read")
        file = files.open_arrays(by_name[signal], framework="pt")
        if file.facts["image_id"] != ids:
            raise PrunecalError(
                f"{by_name[signal]} is of other images than the features; delete it and run "
                "snakemake again"
            )
        signals[name] = file.get_tensor("signal")
    return signals


def _rank_budgets(
    arguments: argparse.Namespace,
    strategy: ModuleType,
    variants: list[dict[str, Any]],
    encoded: Encoded,
    layout: dict[str, Any],
) -> None:
    """Write a file for each variant, with arrays for each budget."""
    import numpy as np

    counts = encoded.features.counts
    parts: list[dict[str, list[Any]]] = [{} for _ in variants]  # by image
    budgets = [int(text) if text.isdigit() else text for text in arguments.budgets]
    for batch in _batches(encoded):
        images = encoded.some(batch)
        for budget in budgets:
            kept = kept_tokens(budget, counts[batch[0]])
            for variant, arrays in enumerate(
                _of_budget(arguments.family, strategy, kept, images, variants)
            ):
                for name, values in arrays.items():
                    of_images = parts[variant].setdefault(f"{name}/{budget}", [None] * len(counts))
                    for image, one in zip(batch, values.numpy(), strict=True):
                        of_images[image] = Sparse.of(one) if name == "weights" else one
    equal = len(set(counts)) == 1
    for variant, (parameters, path) in enumerate(zip(variants, arguments.out, strict=True)):
        facts = {"image_id": encoded.ids, "family": arguments.family, "parameters": parameters}
        numbers = dict(layout)
        if equal:
            facts["visual_tokens"] = counts[0]
        else:
            numbers["tokens"] = np.array(counts, np.int32)
        for name, images in parts[variant].items():
            kind, _, budget = name.partition("/")
            if kind == "weights":
                numbers |= _joined(budget, images)
            else:
                joined = np.stack if equal or kind == "covered" else np.concatenate
                numbers[name] = joined(images)
        files.write_arrays(path, numbers, facts, [arguments.features, *arguments.signals])


def _of_budget(
    family: str, strategy: ModuleType, budget: int, images: Images, variants: list[dict[str, Any]]
) -> list[dict[str, Tensor]]:
    """Return the arrays of each variant for some images at a budget."""
    import torch

    given = _given(family, images, budget, variants)
    if not hasattr(strategy, "merge"):
        return [
            {"kept": order.to(torch.int16), "covered": coverage(images.features, order)}
            for order in rank_many(*given)
        ]
    cls = images.signals.get("cls", torch.zeros_like(images.features[:, :1]))
    sources = torch.cat((cls, images.features), dim=1)
    return [
        {"weights": one, "covered": coverage_of_tokens(images.features, one @ sources)}
        for one in merge_many(*given)
    ]


def _given(
    family: str, images: Images, budget: int | None, variants: list[dict[str, Any]]
) -> tuple[Any, ...]:
    """Return the arguments of `rank_many`; the budget is all tokens if None."""
    budget = images.features.shape[1] if budget is None else budget
    of_images = (images.ids, images.signals, images.grids)
    return family, images.features, images.saliency, budget, variants, *of_images


class Sparse(NamedTuple):
    """Weights [K, N + 1] of an image's sources in its merged tokens: those that are not zero.

    All of them would fill the memory: of most tokens only few sources are part.
    """

    shape: tuple[int, ...]
    places: NDArray
    values: NDArray

    @classmethod
    def of(cls, weights: NDArray) -> Sparse:
        """Return the weights that are not zero, by their flat places."""
        import numpy as np

        places = np.flatnonzero(weights)
        return cls(weights.shape, places, weights.ravel()[places])


def _joined(budget: str, weights: Sequence[Sparse]) -> dict[str, NDArray]:
    """Return the weights of all images as they are stored."""
    import numpy as np

    kept, sources = zip(*(one.shape for one in weights), strict=True)
    starts = starts_of_weights(kept, [count - 1 for count in sources])[:-1]
    places = [one.places + start for one, start in zip(weights, starts, strict=True)]
    values = np.concatenate([one.values for one in weights])
    return {f"places/{budget}": np.concatenate(places), f"weight/{budget}": values}


def _batches(encoded: Encoded) -> list[list[int]]:
    """Group images of equal numbers of tokens and grids, as many at a time as memory takes."""
    alike: dict[Any, list[int]] = {}
    for image, count in enumerate(encoded.features.counts):
        alike.setdefault((count, encoded.grids[image]), []).append(image)
    batches = []
    for (count, _), images in alike.items():
        size = max(1, min(BATCH, ENTRIES // count**2))
        batches += [images[start : start + size] for start in range(0, len(images), size)]
    return batches


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("--family", required=True, help="the strategy's name")
    parser.add_argument("--variants", required=True, help="JSON: a list of its parameters")
    parser.add_argument("--features", type=Path, required=True, help="features.safetensors")
    parser.add_argument("--signals", type=Path, nargs="*", default=[], help="what else it reads")
    parser.add_argument(
        "--budgets", nargs="*", default=[], help="of a strategy whose are not nested"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument(
        "--out", type=Path, nargs="+", required=True, help="a ranking.safetensors per variant"
    )
    cli.run(main, parser.parse_args())
