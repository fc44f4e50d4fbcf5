"""Uniform sampling: the patches in the middle of the cells of the budget's own grid, a baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.strategies._grid import cells
from prunecal.strategies._vision import VisionParams

if TYPE_CHECKING:
    from torch import Tensor

    from prunecal.strategies import Images

LABEL = "Uniform grid"
PRUNES = "before_llm"
NESTED = False


class Params(VisionParams):
    """Uniform sampling has no parameters of its own."""


def rank(images: Images, budget: int, params: Params) -> Tensor:
    """Return the patch under the centre of each cell, the same for all images: [B, budget]."""
    import torch

    kept = [
        cell.first
        + int((cell.top + cell.bottom) / 2) * cell.columns
        + int((cell.left + cell.right) / 2)
        for cell in cells(images, budget)
    ]
    return torch.tensor(kept, device=images.features.device).repeat(len(images.features), 1)
