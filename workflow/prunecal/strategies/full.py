"""The unpruned model: every visual token, in raster order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.core.parameters import Parameters

if TYPE_CHECKING:
    from torch import Tensor

    from prunecal.strategies import Images

LABEL = "Unpruned"
PRUNES = "before_llm"


class Params(Parameters):
    """The unpruned model has nothing to set."""


def rank(images: Images, budget: int, params: Params) -> Tensor:
    """Return raster order, the same for all images: int64 [B, budget]."""
    import torch

    return torch.arange(budget, device=images.features.device).repeat(len(images.features), 1)
