"""Saliency alone: the tokens that the vision tower's CLS token attends to most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.strategies._vision import VisionStrategy

if TYPE_CHECKING:
    from torch import Tensor

LABEL = "Saliency"
PLACE = "vision"


class Params(VisionStrategy):
    """Saliency has no settings of its own."""


def rank(
    features: Tensor, saliency: Tensor, budget: int, params: Params, image_ids: list[str] | None
) -> Tensor:
    """Order tokens by falling saliency [B, N], the lowest index first on a tie: [B, budget]."""
    del features, params, image_ids
    return saliency.argsort(dim=-1, descending=True, stable=True)[:, :budget].contiguous()
