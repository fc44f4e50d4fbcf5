"""What a strategy keeps or merges at several budgets, as its ranking file has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from prunecal.core import plugins
from prunecal.engine.coverage import (
    cosine_similarity,
    coverage,
    coverage_of_sets,
    coverage_of_tokens,
)
from prunecal.strategies import merge_many, rank_many

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray
    from torch import Tensor

    from prunecal.strategies import Images


class Sparse(NamedTuple):
    """The weights [K, N + 1] of a row that are not 0: their flat places, ascending, and values."""

    places: NDArray
    values: NDArray
    shape: tuple[int, ...]


def of_budgets(
    family: str,
    strategy: ModuleType,
    kept: dict[str, int],
    images: Images,
    variants: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Return each variant's arrays for B rows: images, or questions about one image.

    Args:
        family: the strategy's name.
        strategy: its module.
        kept: tokens to keep, by the budget's name.
        images: the rows; features [B, N, D] of one image, expanded, if they are questions.
        variants: the strategy's settings.

    Returns:
        By budget `kept/...` int16 [B, K], or `weights/...`, B of them; and `covered/...` float32
        [B].
    """
    if hasattr(strategy, "merge"):
        return _merged(family, kept, images, variants)
    import torch

    place = torch.zeros(len(images.features), dtype=torch.int64)
    similarity = None
    if images.features.stride(0) == 0:  # one image
        similarity = cosine_similarity(images.features[:1])
    nested = plugins.declared("strategies", strategy, "NESTED")
    result: list[dict[str, Any]] = [{} for _ in variants]
    orders: list[Tensor] = []
    for budget, number in sorted(kept.items(), key=lambda pair: -pair[1]):
        if not nested or not orders:
            orders = rank_many(*ranking_arguments(family, images, number, variants))
        for arrays, order in zip(result, orders, strict=True):
            mine = order[:, :number]
            arrays[f"kept/{budget}"] = mine.to(torch.int16).numpy()
            covered = (
                coverage(images.features, mine)
                if similarity is None
                else coverage_of_sets(similarity, mine, place)
            )
            arrays[f"covered/{budget}"] = covered.numpy()
    return result


def _merged(
    family: str, kept: dict[str, int], images: Images, variants: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    import numpy as np
    import torch

    cls = images.signals.get("cls", torch.zeros_like(images.features[:, :1]))
    sources = torch.cat((cls, images.features), dim=1)
    result: list[dict[str, Any]] = [{} for _ in variants]
    for budget, number in kept.items():
        merged = merge_many(*ranking_arguments(family, images, number, variants))
        for arrays, weights in zip(result, merged, strict=True):
            covered = coverage_of_tokens(images.features, weights @ sources)
            arrays[f"covered/{budget}"] = covered.numpy()
            arrays[f"weights/{budget}"] = [
                Sparse(np.flatnonzero(one), one[one != 0], one.shape) for one in weights.numpy()
            ]
    return result


def ranking_arguments(
    family: str, images: Images, budget: int | None, variants: list[dict[str, Any]]
) -> tuple[Any, ...]:
    """Return the arguments of `rank_many` and `merge_many`; the budget is all tokens if None."""
    budget = images.features.shape[1] if budget is None else budget
    of_images = (images.ids, images.signals, images.grids)
    return family, images.features, images.saliency, budget, variants, *of_images
