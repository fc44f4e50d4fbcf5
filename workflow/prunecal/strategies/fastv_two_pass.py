"""FastV in two passes: read its scores first, then run the pruned prompt from layer 0 on.

The setting in which FastV's paper (arXiv 2403.06764) was evaluated in places: no layer of the
second pass sees a dropped token, while the first pass costs as much as no pruning up to `layer`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from prunecal.strategies._fastv import FastVParams, coverage, rows_of_questions, select

if TYPE_CHECKING:
    from torch import Tensor

    from prunecal.engine.batch import Batch
    from prunecal.engine.decoder import Decoder, Past

__all__ = ["Params", "coverage", "infer", "tokens_per_layer"]

LABEL = "FastV, two passes"
PRUNES = "inside_llm"


class Params(FastVParams):
    """FastV's scores, but dropped tokens are gone from the first layer on."""

    positions: Literal["compact", "original"] = Field(
        "original",
        description="position ids in the second pass: as in the unpruned prompt, or renumbered",
    )


def tokens_per_layer(visual_tokens: int, budget: int, depth: int, params: Params) -> float:
    """Return the mean number of visual tokens per decoder layer in the pass that answers."""
    return float(budget)


def infer(
    decoder: Decoder, batch: Batch, past: Past, budget: int, params: Params
) -> tuple[Tensor, Tensor]:
    """Answer a micro-batch of unpruned rows in two passes.

    Arguments and returns are those of `engine.interfaces.PrunesInside.infer`, errors of `fastv`.
    """
    _, kept = select(decoder, batch, past, budget, params.layer)
    pruned = rows_of_questions(batch, batch.rows.states, kept)
    if params.positions == "compact":
        visual, dropped = kept.shape[1], batch.visual - kept.shape[1]
        positions = pruned.positions.clone()
        positions[:, :visual] += kept.argsort(dim=1) - kept
        positions[:, visual:] -= dropped
        pruned = replace(pruned, positions=positions)
    finals, _ = decoder.run(pruned, past)
    return finals[:, 0], kept
