"""What FastV's variants share: attention scores, selection, evidence coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from prunecal.core.errors import PrunecalError
from prunecal.core.parameters import Parameters
from prunecal.strategies._similarity import cosine_similarity, coverage_of_sets

if TYPE_CHECKING:
    from torch import Tensor

    from prunecal.engine.batch import Batch
    from prunecal.engine.decoder import Decoder, Past, Rows


class FastVParams(Parameters):
    """Settings of every variant of FastV."""

    layer: int = Field(
        2,
        ge=1,
        le=1000,
        description="decoder layers that see every visual token (K in the paper)",
        json_schema_extra={"named": True},
    )


def select(
    decoder: Decoder, batch: Batch, past: Past, budget: int, layer: int
) -> tuple[Tensor, Tensor]:
    """Return the states [B, T, H] before `layer` and each question's kept tokens [Q, budget]."""
    if layer >= len(decoder.layers):
        raise PrunecalError(
            f"fastv: layer {layer} is not below the model's depth of {len(decoder.layers)} layers; "
            "choose a smaller `layer`"
        )
    states, scores = decoder.run(batch.rows, past, last=layer, score=True)
    system = scores.shape[-1] - batch.rows.blocks.shape[1]
    visual = batch.per_question(scores)[:, system : system + batch.visual]
    best = visual.argsort(dim=-1, descending=True, stable=True)  # lowest index first on a tie
    return states, best[:, :budget].sort(dim=-1).values


def coverage(features: Tensor, batch: Batch, kept: Tensor) -> Tensor:
    """Return the evidence coverage float32 [Q] of each question's kept tokens.

    Args:
        features: [B, N, D], the vision features of the micro-batch's rows.
        batch: the micro-batch.
        kept: int64 [Q, budget], as `infer` returns it.
    """
    return coverage_of_sets(cosine_similarity(features), kept, batch.question_row)


def rows_of_questions(batch: Batch, states: Tensor, kept: Tensor) -> Rows:
    """Give each question its own row: its kept visual tokens, then its text."""
    import torch

    from prunecal.engine.decoder import Rows

    rows = batch.rows
    blocks = rows.blocks[batch.question_row, batch.visual :]
    own = (blocks == 0) | (blocks == batch.question_answer[:, None] + 1)
    lengths = own.sum(dim=1)
    # own columns first, in their order; the rest is padding
    text = (~own).int().argsort(dim=1, stable=True)[:, : batch.longest]
    columns = torch.cat((kept, text + batch.visual), dim=1)
    padding = torch.arange(text.shape[1], device=text.device) >= lengths[:, None]
    row = batch.question_row[:, None]
    return Rows(
        states=states[row, columns],
        positions=rows.positions[row, columns],
        blocks=torch.cat((torch.zeros_like(kept), -padding.long()), dim=1),
        answers=(lengths - 1 + kept.shape[1])[:, None],
    )
