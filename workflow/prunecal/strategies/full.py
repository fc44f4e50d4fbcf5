"""The unpruned model: every visual token, in raster order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.core.parameters import Parameters

if TYPE_CHECKING:
    from torch import Tensor

LABEL = "Unpruned"
PLACE = "vision"


class Params(Parameters):
    """The unpruned model has nothing to set."""


def rank(
    features: Tensor, saliency: Tensor, budget: int, params: Params, image_ids: list[str] | None
) -> Tensor:
    """Return raster order, whatever the features [B, N, D] hold: int64 [B, budget]."""
    del saliency, params, image_ids
    import torch

    return torch.arange(budget, device=features.device).repeat(len(features), 1)
