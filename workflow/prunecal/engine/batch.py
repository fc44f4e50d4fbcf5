"""A micro-batch on the device: packed rows with their visual tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch.nn.utils.rnn import pad_sequence

from prunecal.engine.device import send
from prunecal.engine.images import padded
from prunecal.engine.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from prunecal.engine.decoder import Decoder, Past
    from prunecal.engine.images import Part
    from prunecal.engine.interfaces import VisionLanguageModel
    from prunecal.engine.planner import Row


@dataclass
class Batch:
    """A micro-batch ready to run.

    Attributes:
        rows: packed rows; the visual tokens of each come first, then its glue and text.
        visual: V, visual tokens per row: columns 0 to V - 1 of each; the largest number, where the
            rows have different ones.
        question_row: int64 [Q], the row of each question, row by row.
        question_answer: int64 [Q], each question's index among the answers of its row.
        longest: tokens of the longest question's text and glue; an int, so that reading it never
            waits for the device.
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

    def part(self, some: slice) -> Batch:
        """Return some of the rows, each of which has one question."""
        count = torch.arange(len(self.question_row[some]), device=self.question_row.device)
        answer = torch.zeros_like(count)
        return Batch(self.rows.part(some), self.visual, count, answer, self.longest)

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
    planned: Sequence[Row], parts: Sequence[Part], model: VisionLanguageModel, system: int
) -> tuple[Batch, Tensor]:
    """Assemble a planned micro-batch on the model's device.

    Args:
        planned: the rows of one batch of the plan.
        parts: the image of each row.
        model: projects visual tokens and embeds the others.
        system: tokens before the image.

    Returns:
        The batch, and its rows' features [B, V, D], zero behind those of an image.
    """
    device = model.device
    features = send(padded([part.features for part in parts]), device)
    visual = model.project(features)
    width = visual.shape[1]
    axes = len(parts[0].visual_positions)
    embed = getattr(model, "embed_glue", model.decoder.embed)
    tokens, positions, places, blocks, answers = [], [], [], [], []
    for row, part in zip(planned, parts, strict=True):
        offsets, glue, spare = torch.tensor(row.offsets), len(part.glue), width - part.kept
        text = (offsets + part.end).expand(axes, -1)
        behind = torch.zeros(axes, spare, dtype=torch.int64)  # its visual tokens, in a wider batch
        tokens.append(torch.tensor([*part.glue, *row.tokens]))
        parts_of_row = (part.visual_positions, behind, part.glue_positions, text)
        positions.append(torch.cat(parts_of_row, dim=1).T)
        parts_of_row = (part.visual_places, behind[0], part.glue_places, offsets + part.kept + glue)
        places.append(torch.cat(parts_of_row))
        blocks.append(torch.tensor([0] * part.kept + [-1] * spare + [0] * glue + [*row.blocks]))
        answers.append(torch.tensor(row.answers) + width + glue)

    def sent(values: list[Tensor], fill: int = 0) -> Tensor:
        return send(pad_sequence(values, batch_first=True, padding_value=fill), device)

    on_axes = (sent(positions) + system).permute(2, 0, 1)
    rows = Rows(
        states=torch.cat((visual, embed(sent(tokens))), dim=1),
        positions=on_axes if axes > 1 else on_axes[0],
        blocks=sent(blocks, -1),
        answers=sent(answers),
        places=sent(places) + system,
        ordered=all(part.ordered for part in parts),
    )
    rows.deep = tuple(
        _beside(rows.states, send(padded([part.deep[layer] for part in parts]), device))
        for layer in range(len(parts[0].deep))
    )
    if getattr(model, "both_ways", False):
        rows.groups = torch.full_like(rows.blocks, -1)
        rows.groups[:, :width] = rows.blocks[:, :width]  # 0 for visual tokens, -1 for padding
    pairs = [(at, nth) for at, row in enumerate(planned) for nth in range(len(row.questions))]
    question_row, question_answer = send(torch.tensor(pairs), device).T
    longest = max(
        len(part.glue) + row.shared + row.blocks.count(nth + 1)
        for row, part in zip(planned, parts, strict=True)
        for nth in range(len(row.questions))
    )
    return Batch(rows, width, question_row, question_answer, longest), features


def single(visual: Tensor, text: Tensor, system: int) -> Batch:
    """Return a batch of one unpruned prompt with one question.

    Args:
        visual: [N, H], its visual tokens.
        text: [L, H], the embeddings of the text after them.
        system: tokens before the image.
    """
    count, length = len(visual), len(visual) + len(text)
    places = torch.arange(length, device=visual.device)[None]
    rows = Rows(
        states=torch.cat((visual, text))[None],
        positions=places + system,
        blocks=(places >= count).long(),
        answers=places[:, -1:],
        places=places + system,
    )
    zero = places.new_zeros(1)
    return Batch(rows, count, zero, zero, longest=len(text))


def without_image(planned: Sequence[Row], decoder: Decoder, device: torch.device) -> Batch:
    """Assemble a planned micro-batch of prompts that have no image; nothing precedes the rows."""

    def sent(values: Sequence[Sequence[int]], fill: int = 0) -> Tensor:
        rows = [torch.tensor(row) for row in values]
        return send(pad_sequence(rows, batch_first=True, padding_value=fill), device)

    places = sent([row.offsets for row in planned])
    rows = Rows(
        states=decoder.embed(sent([row.tokens for row in planned])),
        positions=places,
        blocks=sent([row.blocks for row in planned], -1),
        answers=sent([row.answers for row in planned]),
        places=places,
    )
    pairs = [(at, nth) for at, row in enumerate(planned) for nth in range(len(row.questions))]
    question_row, question_answer = send(torch.tensor(pairs), device).T
    return Batch(rows, 0, question_row, question_answer, max(len(row.tokens) for row in planned))


def answer_states(
    decoder: Decoder, batch: Batch, past: Past | None, keep: Past | None = None
) -> Tensor:
    """Return the final state [Q, H] from which each question's answer is read.

    Args:
        decoder: the language model.
        batch: the rows.
        past: keys and values of the shared system text.
        keep: list to which each layer's keys and values are appended, those of `past` first.
    """
    return batch.per_question(decoder.run(batch.rows, past, keep=keep))


def advance(decoder: Decoder, batch: Batch, past: Past | None, first: int, last: int) -> Batch:
    """Return a micro-batch before layer `last`, given the one before layer `first`.

    Args:
        decoder: the language model.
        batch: the rows.
        past: keys and values of the shared system text.
        first: layer that the rows are the input of.
        last: layer to stop before, not below `first`.
    """
    if first == last:
        return batch
    states = decoder.run(batch.rows, past, first=first, last=last)
    return replace(batch, rows=replace(batch.rows, states=states))


def _beside(states: Tensor, visual: Tensor) -> Tensor:
    """Return [B, T, H] with `visual` [B, V, H] in the first columns, zero elsewhere."""
    values = torch.zeros_like(states)
    values[:, : visual.shape[1]] = visual
    return values
