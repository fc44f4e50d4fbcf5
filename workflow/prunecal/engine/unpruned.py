"""Unpruned micro-batches, run to the layers at which strategies begin to drop tokens.

All strategies that prune inside the decoder begin alike, at every budget: what one cell of a job
has computed serves the next.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prunecal.engine.batch import advance

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from prunecal.engine.batch import Batch
    from prunecal.engine.decoder import Decoder, Past
    from prunecal.engine.planner import Row

MOST_BYTES = 2**28  # of states and features kept; a model of 7B keeps none, and gains least
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
    _before: dict[int, Batch] = field(default_factory=dict)

    def before(self, layer: int) -> Batch:
        """Return the rows before a layer."""
        known = max((at for at in self._before if at <= layer), default=0)
        batch = self._before.get(known, self.batch)
        if known < layer:
            batch = self._before[layer] = advance(self.decoder, batch, self.past, known, layer)
        return batch

    @property
    def bytes(self) -> int:
        """The size of what is kept."""
        kept = (self.batch, *self._before.values())
        return self.features.nbytes + sum(batch.rows.states.nbytes for batch in kept)


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
        size = made.features.nbytes + LAYERS * made.batch.rows.states.nbytes
        if size + sum(kept.bytes for kept in self._kept.values()) <= MOST_BYTES:
            self._kept[key] = made
        return made
