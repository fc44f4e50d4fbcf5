"""Run a strategy that drops visual tokens inside the decoder: one loop over its stages.

Rows of several questions stay packed up to the first cut; from there each question has a row of its
own, because its tokens are its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from prunecal.core.errors import PrunecalError
from prunecal.engine.batch import Batch, advance
from prunecal.engine.decoder import Rows
from prunecal.engine.held import Held
from prunecal.engine.selections import refuse_other_reduction

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from torch import Tensor

    from prunecal.engine.decoder import Decoder, Past
    from prunecal.engine.interfaces import Reduction, Stage
    from prunecal.engine.unpruned import Unpruned


@dataclass
class Seen:
    """What a strategy sees at a stage.

    Attributes:
        batch: the rows that enter the layer of the cut; their first columns are the visual tokens.
        attention: float32 [Q, heads, R, V], attention of each question's queries to the visual
            tokens in the layer that was looked at; R is 0 if the strategy looks at keys.
        queries: int64 [Q, R], the queries' places in the question's text, as `Batch.text` has it.
        asking: bool [Q, R], which queries are no padding.
        keys: [B, key heads, T, d], the rows' keys after rotation in that layer.
        decoder: the language model.
    """

    batch: Batch
    attention: Tensor
    queries: Tensor
    asking: Tensor
    keys: Tensor
    decoder: Decoder

    def scores(self) -> Tensor:
        """Return the attention of each visual token, mean over heads and queries, [Q, V]."""
        mean = self.attention.mean(dim=1)
        if mean.shape[1] == 1:
            return mean[:, 0]
        asking = self.asking[:, :, None]
        return (mean * asking).sum(dim=1) / asking.sum(dim=1)


@dataclass
class Pruned:
    """Answers of a micro-batch that was pruned inside the decoder.

    Attributes:
        states: final states [Q, H] at the answers.
        kept: per stage, int64 [Q, K], indices of the kept tokens among those that entered it.
        held: which patches the tokens hold that are left.
    """

    states: Tensor
    kept: list[Tensor]
    held: Held


def run(
    unpruned: Unpruned,
    stages: Sequence[Stage],
    strategy: ModuleType,
    params: Any,
    most_tokens: int | None = None,
) -> Pruned:
    """Answer a micro-batch of unpruned rows, dropping tokens at each stage.

    Position ids are the original ones, unless the strategy's settings have `positions` of
    "compact": then they are renumbered without gaps at every cut.

    Args:
        unpruned: rows with all N visual tokens.
        stages: where tokens are dropped.
        strategy: selects them; see `interfaces.PrunesInside`.
        params: its settings.
        most_tokens: tokens of a micro-batch after the first cut, from which on each question has
            a row of its own; by default all are in one.

    Raises:
        PrunecalError: stages that the decoder cannot run.
    """
    decoder, past, batch = unpruned.decoder, unpruned.past, unpruned.batch
    check(stages, batch.visual, len(decoder.layers))
    count = len(batch.question_row)
    patches = torch.arange(batch.visual, device=batch.rows.states.device).expand(count, -1)
    held = Held(patches, batch.rows.states.new_zeros(count, 0, batch.visual, dtype=torch.float32))
    asking = strategy.queries(batch, params) if hasattr(strategy, "queries") else None
    first, *others = stages
    cut = _Cutter(decoder, past, strategy, params)
    seen = cut.look(unpruned.before(first.look), first, asking)
    batch, held, kept = cut.reduce(seen, unpruned.before(first.cut), held, first)
    parts = []
    for some in _slices(batch, most_tokens):
        part = Held(held.patch[some], held.merged[some])
        asks = None if asking is None else asking[some]
        parts.append(cut.finish(batch.part(some), first.cut, others, part, asks))
    later = zip(*(part.kept for part in parts), strict=True)
    return Pruned(
        torch.cat([part.states for part in parts]),
        [kept, *map(torch.cat, map(list, later))],
        Held(
            torch.cat([part.held.patch for part in parts]),
            torch.cat([part.held.merged for part in parts]),
        ),
    )


def _slices(batch: Batch, most_tokens: int | None) -> list[slice]:
    """Cut rows into parts of about equal size: of at most so many tokens each, or of one row.

    So memory and the processor's caches hold no more than before the cut.
    """
    count, length = batch.rows.states.shape[:2]
    most = count if most_tokens is None else max(1, most_tokens // length)
    parts = -(-count // most)
    ends = [count * number // parts for number in range(parts + 1)]
    return [slice(*pair) for pair in pairwise(ends)]


@dataclass
class _Cutter:
    """Runs the stages of a strategy on a decoder."""

    decoder: Decoder
    past: Past | None
    strategy: ModuleType
    params: Any

    def look(self, batch: Batch, stage: Stage, asking: Tensor | None) -> Seen:
        """Return what the strategy sees at a stage of rows before its `look`."""
        keys_alone = getattr(self.strategy, "LOOKS", "attention") == "keys"
        return _look(self.decoder, batch, self.past, stage.look, asking, keys_alone=keys_alone)

    def reduce(self, seen: Seen, batch: Batch, held: Held, stage: Stage) -> tuple:
        """Return the rows after a stage, what they hold, and what was kept of those before it."""
        compact = getattr(self.params, "positions", "original") == "compact"
        system = 0 if self.past is None else self.past[0][0].shape[2]
        reduction = self.strategy.select(replace(seen, batch=batch), stage, self.params)
        count = len(batch.question_row)
        refuse_other_reduction(self.strategy, reduction, stage, count, batch.visual)
        pruned = _reduced(batch, reduction, system, compact=compact)
        return pruned, held.after(reduction), reduction.kept

    def finish(
        self, batch: Batch, at: int, stages: Sequence[Stage], held: Held, asking: Tensor | None
    ) -> Pruned:
        """Run rows before layer `at`, one per question, through the other stages to the end."""
        kept = []
        for stage in stages:
            batch = advance(self.decoder, batch, self.past, at, stage.look)
            seen = self.look(batch, stage, asking)
            batch = advance(self.decoder, batch, self.past, stage.look, stage.cut)
            batch, held, some = self.reduce(seen, batch, held, stage)
            kept.append(some)
            at = stage.cut
        states = self.decoder.run(batch.rows, self.past, first=at)
        return Pruned(batch.per_question(states), kept, held)


def check(stages: Sequence[Stage], visual: int, depth: int) -> None:
    """Refuse stages that a decoder of some layers cannot run on some visual tokens.

    Raises:
        PrunecalError: a layer is not there, or a stage runs before the one in front of it, keeps
            more tokens than enter it, or keeps none.
    """
    at = 0
    for number, stage in enumerate(stages, start=1):
        fault = ""
        if max(stage.look, stage.cut) >= depth:
            fault = f"needs layer {max(stage.look, stage.cut)} of a decoder with {depth} layers"
        elif stage.look < at or (stage.cut < stage.look and (number > 1 or stage.cut)):
            fault = f"looks at layer {stage.look} and cuts at layer {stage.cut}, after layer {at}"
        elif not 1 <= stage.entering <= visual or min(stage.keep, stage.merge) < 0:
            fault = f"leaves {stage.entering} of {visual} visual tokens"
        if fault:
            raise PrunecalError(f"stage {number} {fault}; change the strategy's settings")
        at, visual = stage.cut, stage.entering


def best(scores: Tensor, count: int) -> Tensor:
    """Return the columns of the largest scores [Q, V] in raster order, the lowest of a tie."""
    order = scores.argsort(dim=-1, descending=True, stable=True)
    return order[:, :count].sort(dim=-1).values


def _look(
    decoder: Decoder,
    batch: Batch,
    past: Past | None,
    number: int,
    asking: Tensor | None,
    *,
    keys_alone: bool,
) -> Seen:
    """Look at the attention of the tokens [Q, L] that ask, or of each prompt's last one."""
    columns, real = batch.text()
    if asking is None:
        places = real.sum(dim=1, keepdim=True) - 1
        places = places[:, : 0 if keys_alone else 1]
        asks = torch.ones_like(places, dtype=torch.bool)
    else:
        count = int(asking.sum(dim=1).max())
        places = (~asking).int().argsort(dim=1, stable=True)[:, :count]
        asks = asking.gather(1, places)
    queries = batch.per_row(columns.gather(1, places))  # [B, A, R]
    keys, attention = decoder.look(batch.rows, past, number, queries.flatten(1))
    system = attention.shape[-1] - batch.rows.blocks.shape[1]
    visual = attention[..., system : system + batch.visual].unflatten(2, queries.shape[1:])
    return Seen(batch, batch.per_question(visual.transpose(1, 2)), places, asks, keys, decoder)


def _reduced(batch: Batch, reduction: Reduction, system: int, *, compact: bool) -> Batch:
    """Give each question its own row: its visual tokens after a reduction, then its text.

    Args:
        batch: rows before the cut.
        reduction: what becomes of their visual tokens.
        system: tokens before the image.
        compact: whether positions are renumbered.

    Raises:
        PrunecalError: a token would have no position, or no input of the layers to come.
    """
    rows, row, kept = batch.rows, batch.question_row[:, None], reduction.kept
    text, real = batch.text()
    parts, merged = [rows.states[row, kept]], 0
    if reduction.merged is not None:
        weights = batch.per_row(reduction.merged.to(rows.states.dtype))
        sums = weights.flatten(1, 2) @ rows.states[:, : batch.visual]
        parts.append(batch.per_question(sums.unflatten(1, weights.shape[1:3])))
        merged = parts[1].shape[1]
    if merged and (not compact or rows.deep or not rows.ordered):
        raise PrunecalError(
            "a merged token has no position of its own, and no input of deeper layers; set "
            "`positions: compact`, or use a strategy that merges nothing"
        )
    if compact and rows.positions.ndim == 3:  # noqa: PLR2004  rows and columns of the image
        raise PrunecalError(
            "this model's positions are rows and columns, which cannot be renumbered; set "
            "`positions: original`"
        )
    visual = kept.shape[1] + merged
    columns = torch.cat((kept, kept[:, :1].expand(-1, merged), text), dim=1)
    length = torch.arange(columns.shape[1], device=kept.device).expand_as(columns)
    positions = rows.positions[..., row, columns]
    if compact:
        dropped = batch.visual - visual
        positions = torch.where(length < visual, length + system, positions - dropped)
    places, zeros = length + system, columns.new_zeros(len(kept), visual)
    if not rows.ordered:  # text of the image lies between visual tokens
        places = rows.packed_places(row, columns, torch.cat((zeros == 0, real), dim=1))
        positions = places if compact else positions
    pruned = Rows(
        states=torch.cat((*parts, rows.states[row, text]), dim=1),
        positions=positions,
        blocks=torch.cat((zeros, -(~real).long()), dim=1),
        answers=real.sum(dim=1, keepdim=True) - 1 + visual,
        places=places,
        groups=None if rows.groups is None else rows.groups[row, columns],
        deep=tuple(added[row, columns] for added in rows.deep),
        ordered=rows.ordered,
    )
    count = torch.arange(len(kept), device=kept.device)
    return Batch(pruned, visual, count, torch.zeros_like(count), batch.longest)
