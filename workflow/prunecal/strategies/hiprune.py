"""HiPrune: anchors of an early layer with their neighbours, then the best tokens of a late one.

arXiv 2508.00553; followed: Danielement321/HiPrune 6e83a12. Both maps are the attention that a patch
receives, mean over heads and over all queries, CLS included. Anchors are the round(K alpha / 5)
best of layer 9 of 24 (scaled with the tower's depth), buffers their neighbours left, right, above
and below, registers the best of the feature layer among the others.

Followed too: neighbours are clamped to the first and last patch without regard to rows, so that the
left neighbour of a row's first patch is the last one of the row above. The official code has a grid
of 24 x 24 written into it; here it is the square root of the number of patches. Where anchors and
buffers are more than the budget, on which the official code fails, the buffers named last are left
out.
"""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING

from pydantic import Field

from prunecal.strategies._vision import VisionParams

if TYPE_CHECKING:
    from torch import Tensor

    from prunecal.engine.interfaces import Signal
    from prunecal.strategies import Images

LABEL = "HiPrune"
PRUNES = "before_llm"
NESTED = False
READS: dict[str, Signal] = {"deep_attention": "attention", "object_attention": "early_attention"}


class Params(VisionParams):
    """Settings of HiPrune."""

    alpha: float = Field(
        0.1, ge=0, le=1, description="share of the budget that goes to anchors and their neighbours"
    )


def rank(images: Images, budget: int, params: Params) -> Tensor:
    """Return anchors, buffers and registers: int64 [B, budget]."""
    import torch

    deep, early = images.signals["deep_attention"], images.signals["object_attention"]
    tokens, side = deep.shape[1], isqrt(deep.shape[1])
    count = round(budget * params.alpha / 5)  # to even at a half, as the official code
    anchors = early.argsort(dim=1, descending=True, stable=True)[:, :count]
    near = torch.cat([(anchors + step).clamp(0, tokens - 1) for step in (-1, 1, -side, side)], 1)
    by_depth = deep.argsort(dim=1, descending=True, stable=True)
    listed = torch.cat((anchors, near, by_depth), dim=1).tolist()
    kept = [list(dict.fromkeys(row))[:budget] for row in listed]
    return torch.tensor(kept, device=deep.device)
