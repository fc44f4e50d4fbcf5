"""FastV in two passes: read its scores first, then run the pruned prompt from layer 0 on.

A variant of this project, to separate which tokens FastV (arXiv 2403.06764) keeps from the layers
that see all of them. The official repository (pkunlp-icler/FastV d165972) has none like it: its
evaluations mask or drop tokens within one pass, so that the layers before `layer` see everything.
Here no layer of the second pass sees a dropped token, while the first pass costs as much as no
pruning up to `layer`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from prunecal.engine.interfaces import Stage
from prunecal.strategies._fastv import FastVParams, refuse_deep, select

__all__ = ["Params", "explicit", "select", "stages"]

LABEL = "FastV, two passes"
PRUNES = "inside_llm"


class Params(FastVParams):
    """FastV's scores, but dropped tokens are gone from the first layer on."""

    positions: Literal["compact", "original"] = Field(
        "original",
        description="position ids in the second pass: as in the unpruned prompt, or renumbered",
    )


def stages(visual_tokens: int, budget: float, depth: int, params: Params) -> list[Stage]:
    """Look at layer `layer` - 1, drop before layer 0.

    Raises:
        PrunecalError: the decoder has no layer after `layer`.
    """
    refuse_deep(params.layer, depth)
    return [Stage(params.layer - 1, 0, round(budget))]


def explicit(
    visual_tokens: int, depth: int, layer: int = 2, budget: int = 16
) -> tuple[list[Stage], Params]:
    """Return stages and settings from the official arguments, for `decode`."""
    params = Params(layer=layer)
    return stages(visual_tokens, budget, depth, params), params
