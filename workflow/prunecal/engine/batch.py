"""A micro-batch on the device: packed rows with their visual tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.utils.rnn import pad_sequence

from prunecal.engine.decoder import Rows
from prunecal.engine.device import send

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from prunecal.engine.decoder import Decoder, Past
    from prunecal.engine.planner import Row


@dataclass
class Batch:
    """A micro-batch ready to run.

    Attributes:
        rows: packed rows; columns 0 to V - 1 are the visual tokens, then the text.
        visual: V, visual tokens per row.
        question_row: int64 [Q], the row of each question, row by row.
        question_answer: int64 [Q], each question's index among the answers of its row.
        longest: tokens of the longest question's text; an int, so that reading it never waits for
            the device.
    """

    rows: Rows
    visual: int
    question_row: Tensor
    question_answer: Tensor
    longest: int

    def per_question(self, values: Tensor) -> Tensor:
        """Return [Q, ...] from per-row answers [B, A, ...]."""
        return values[self.question_row, self.question_answer]

    def per_row(self, values: Tensor) -> Tensor:
        """Return [B, A, ...] from per-question values [Q, ...]; rows with fewer answers get 0."""
        count, answers = len(self.rows.states), self.rows.answers.shape[1]
        rows = values.new_zeros(count, answers, *values.shape[1:])
        rows[self.question_row, self.question_answer] = values
        return rows

    def text(self) -> tuple[Tensor, Tensor]:
        """Return each question's text: columns int64 [Q, L] of its row, and which are no padding.

        A question's own columns come first, in their order.
        """
        blocks = self.rows.blocks[self.question_row, self.visual :]
        own = (blocks == 0) | (blocks == self.question_answer[:, None] + 1)
        columns = (~own).int().argsort(dim=1, stable=True)[:, : self.longest]
        places = torch.arange(columns.shape[1], device=columns.device)
        return columns + self.visual, places < own.sum(dim=1, keepdim=True)


def assemble(
    planned: Sequence[Row], visual: Tensor, positions: Tensor, text_start: int, decoder: Decoder
) -> Batch:
    """Assemble a planned micro-batch on the device.

    Args:
        planned: the rows of one batch of the plan.
        visual: [B, V, H], projected visual tokens of each row, in raster order.
        positions: int64 [B, V], their position ids.
        text_start: position id of the first text token after the image.
        decoder: embeds the text.
    """
    device = visual.device

    def padded(values: list[tuple[int, ...]], fill: int) -> Tensor:
        tensors = [torch.tensor(value) for value in values]
        return send(pad_sequence(tensors, batch_first=True, padding_value=fill), device)

    tokens = padded([row.tokens for row in planned], 0)
    offsets = padded([row.offsets for row in planned], 0)
    blocks = padded([row.blocks for row in planned], -1)
    answers = padded([row.answers for row in planned], 0)
    count, width = visual.shape[:2]
    rows = Rows(
        states=torch.cat((visual, decoder.embed(tokens)), dim=1),
        positions=torch.cat((positions, offsets + text_start), dim=1),
        blocks=torch.cat((blocks.new_zeros(count, width), blocks), dim=1),
        answers=answers + width,
    )
    pairs = [(at, nth) for at, row in enumerate(planned) for nth in range(len(row.questions))]
    question_row, question_answer = send(torch.tensor(pairs), device).T
    longest = max(
        row.shared + row.blocks.count(nth + 1)
        for row in planned
        for nth in range(len(row.questions))
    )
    return Batch(rows, width, question_row, question_answer, longest)


def answer_states(decoder: Decoder, batch: Batch, past: Past) -> Tensor:
    """Return the final state [Q, H] from which each question's answer is read."""
    return batch.per_question(decoder.run(batch.rows, past))
