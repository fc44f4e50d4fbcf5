"""Saliency alone: the tokens that the vision tower's CLS token attends to most.

This is FasterVLM (arXiv 2412.01818, Theia-4869/FasterVLM f5d5f12): mean over heads there, sum here,
which is the same order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.strategies._vision import VisionParams

if TYPE_CHECKING:
    from torch import Tensor

    from prunecal.strategies import Images

LABEL = "Saliency"
PRUNES = "before_llm"


class Params(VisionParams):
    """Saliency has no parameters of its own."""


def rank(images: Images, budget: int, params: Params) -> Tensor:
    """Rank tokens by falling saliency, the lowest index first on a tie: int64 [B, budget]."""
    return images.saliency.argsort(dim=-1, descending=True, stable=True)[:, :budget].contiguous()
