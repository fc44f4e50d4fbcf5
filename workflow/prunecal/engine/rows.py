"""Packed rows, the input of the decoder's loop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Before:
    """Columns in front of rows, whose keys and values are known.

    Attributes:
        blocks: int64 [B, T], as those of `Rows`.
        places: int64 [B, T], likewise.
    """

    blocks: Tensor
    places: Tensor

    def then(self, rows: Rows) -> Before:
        """Return these columns and those of rows behind them."""
        assert rows.places is not None  # noqa: S101
        blocks = torch.cat((self.blocks, rows.blocks), dim=1)
        return Before(blocks, torch.cat((self.places, rows.places), dim=1))


@dataclass
class Rows:
    """A batch of packed rows.

    Attributes:
        states: [B, T, H], embeddings or hidden states.
        positions: int64 [B, T], position ids, or [3, B, T] (time, row, column) for a decoder with
            multimodal rotary positions, which takes the former as equal on all axes.
        blocks: int64 [B, T]; all later tokens of the row attend to block 0, only tokens of block b
            attend to block b > 0, and -1 is padding.
        answers: int64 [B, A], columns whose final states are returned; rows with fewer repeat one.
        places: int64 [B, T], each token's place in its own prompt, by which sliding windows count;
            None if no layer has a window and the columns are ordered.
        groups: int64 [B, T], tokens of one group >= 0 attend to each other both ways (the image
            tokens of Gemma 3); None if all attention is causal.
        deep: [B, T, H] for each of the first layers, added to the states after it (DeepStack,
            arXiv 2406.04334); zero but at visual tokens.
        ordered: the columns of each prompt are in the order of its places.
        before: what stands between the text before all rows and these, which are then one token
            of each block; None if nothing does.
    """

    states: Tensor
    positions: Tensor
    blocks: Tensor
    answers: Tensor
    places: Tensor | None = None
    groups: Tensor | None = None
    deep: tuple[Tensor, ...] = ()
    ordered: bool = True
    before: Before | None = None

    def part(self, some: slice) -> Rows:
        """Return some of the rows, none of which has columns before it."""
        return replace(
            self,
            states=self.states[some],
            positions=self.positions[..., some, :],
            blocks=self.blocks[some],
            answers=self.answers[some],
            places=None if self.places is None else self.places[some],
            groups=None if self.groups is None else self.groups[some],
            deep=tuple(added[some] for added in self.deep),
        )

    def packed_places(self, row: Tensor, columns: Tensor, real: Tensor) -> Tensor:
        """Return the places of some columns once the others are gone, int64 [Q, C].

        Args:
            row: int64 [Q, 1], the row of each question.
            columns: int64 [Q, C], its columns, padding last.
            real: bool [Q, C], which of them are no padding.

        Raises:
            ValueError: the rows have no places.
        """
        if self.places is None:
            raise ValueError("unordered columns count places; give Rows.places")
        last = torch.iinfo(torch.int64).max
        old = self.places[row, columns].masked_fill(~real, last)
        return old.argsort(dim=1).argsort(dim=1) + self.places.min()
