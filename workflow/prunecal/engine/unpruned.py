"""Unpruned micro-batches, run to the layers at which strategies begin to drop tokens.

All strategies that prune inside the decoder begin alike, at every budget: what one cell of a job
has computed serves the next.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from prunecal.engine.batch import Batch
    from prunecal.engine.decoder import Decoder, Past
    from prunecal.engine.planner import Row

MOST_BYTES = 2**28  # of states that are kept; a model of 7B keeps none, and gains least
LAYERS = 3  # before which the states of a micro-batch are expected to be kept, layer 0 included


@dataclass
class Unpruned:
    """A micro-batch of rows with all their visual tokens, before some layers of the decoder.

    Attributes:
        decoder: the language model.
        past: keys and values of the shared system text.
        batch: the rows before layer 0.
        features: [B, N, D], the vision features of the rows.
    """

    decoder: Decoder
    past: Past | None
    batch: Batch
    features: Tensor
    _states: dict[int, Tensor] = field(default_factory=dict)

    def before(self, layer: int) -> Batch:
        """Return the rows before a layer."""
        known = max((at for at in self._states if at <= layer), default=0)
        rows = self.batch.rows
        if known:
            rows = replace(rows, states=self._states[known])
        if known < layer:
            states = self.decoder.run(rows, self.past, first=known, last=layer)
            self._states[layer] = states
            rows = replace(rows, states=states)
        return replace(self.batch, rows=rows)

    @property
    def bytes(self) -> int:
        """The size of what is kept."""
        kept = (self.batch.rows.states, *self._states.values())
        return sum(states.nbytes for states in kept)


class Memory:
    """The unpruned micro-batches of a job, as many as fit into `MOST_BYTES`."""

    def __init__(self) -> None:
        self._kept: dict[tuple, Unpruned] = {}

    def of(self, rows: Sequence[Row], make: Callable[[], Unpruned]) -> Unpruned:
        """Return the micro-batch of planned rows, made if it is not kept."""
        key = tuple((row.image, row.questions) for row in rows)
        if key in self._kept:
            return self._kept[key]
        made = make()
        size = LAYERS * made.batch.rows.states.nbytes
        if size + sum(kept.bytes for kept in self._kept.values()) <= MOST_BYTES:
            self._kept[key] = made
        return made
