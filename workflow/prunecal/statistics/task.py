"""One model on one data set: metrics of its strategies at each budget, seeds of one joined."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from prunecal.statistics.accuracy_matched import keys_of
from prunecal.statistics.baselines import why_not_tested
from prunecal.statistics.bootstrap import image_weights
from prunecal.statistics.contrasts import unseeded
from prunecal.statistics.selectors import ANSWER_RATES, ANSWERING
from prunecal.statistics.significance import FEWEST_IMAGES
from prunecal.statistics.thresholds import Answers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from prunecal.statistics.predictions import Cell
    from prunecal.statistics.scores import Scores


class Series(NamedTuple):
    """One strategy at one budget, whatever its seeds."""

    name: str  # without the seed
    budget: int
    members: list[int]  # indices of its cells


class Measure(NamedTuple):
    """Values of some cells, float64 [m], and their replicates [m, R]."""

    value: NDArray
    draws: NDArray

    def __sub__(self, other: Measure) -> Measure:
        """Return the paired differences, over the resamples that both have."""
        shared = min(self.draws.shape[1], other.draws.shape[1])
        draws = self.draws[:, :shared] - other.draws[:, :shared]
        return Measure(self.value - other.value, draws)


@dataclass(frozen=True)
class Task:
    """One model on one data set.

    Attributes:
        scores: its metrics on the resamples.
        cells: its predictions, in the order of `scores.cells`.
        margins: by how much accuracy and ECE may be worse.
    """

    scores: Scores
    cells: list[Cell]
    margins: Mapping[str, float]

    @cached_property
    def series(self) -> list[Series]:
        """Pruned cells, seeds joined, by strategy, from large budgets to small."""
        grouped: dict[tuple[str, int], list[int]] = {}
        for index, cell in enumerate(self.scores.cells):
            if index != self.scores.reference:
                grouped.setdefault((unseeded(cell), cell["budget"]), []).append(index)
        listed = [Series(*key, members) for key, members in grouped.items()]
        places = {one.name: place for place, one in reversed([*enumerate(listed)])}
        return sorted(listed, key=lambda one: (places[one.name], -one.budget))

    @cached_property
    def images(self) -> tuple[NDArray, NDArray]:
        """The image ids, sorted, and the index of each row's."""
        return np.unique(self.cells[0].rows["image_id"], return_inverse=True)

    @cached_property
    def weights(self) -> NDArray:
        """How often each image counts in the sample and in each resample of the score file."""
        count, facts = len(self.images[0]), self.scores.facts
        drawn = image_weights(count, facts["resamples"]["accuracy"], facts["seed"])
        return np.hstack([np.ones((count, 1)), drawn])

    @property
    def enough(self) -> bool:
        """Whether there are images enough for tests."""
        return len(self.images[0]) >= FEWEST_IMAGES

    def why_not_tested(self, level: float) -> str:
        """Say why pruning cannot be judged, see `baselines.why_not_tested`; else empty."""
        return why_not_tested(self.scores, self.scores.pooled, level)

    def measure(self, metric: str) -> Measure:
        """Return a metric of each series, means over seeds."""
        scores = self.scores
        if metric not in scores.facts["metrics"]:
            return Measure(*(np.full(shape, np.nan) for shape in ((len(self.series),), (1, 2))))
        value = scores.value(metric)[:, scores.pooled]
        draws = scores.draws(metric)[:, scores.pooled]
        members = [one.members for one in self.series]
        return Measure(
            np.array([value[index].mean() for index in members]),
            np.stack([draws[index].mean(axis=0) for index in members]),
        )

    def unpruned(self, metric: str) -> Measure:
        """Return a metric of the unpruned model."""
        scores, at = self.scores, [self.scores.reference]
        value, draws = scores.value(metric), scores.draws(metric)
        return Measure(value[at, scores.pooled], draws[at, scores.pooled])

    @cached_property
    def silent(self) -> NDArray:
        """Whether each series has stopped answering with an option, see `silent_cells`."""
        for name in ANSWER_RATES:
            rate = self.measure(name).value
            if name in self.scores.facts["metrics"] and not np.isnan(rate).all():
                return rate < ANSWERING * self.unpruned(name).value
        return np.zeros(len(self.series), dtype=bool)

    def answers(self, index: int) -> Answers:
        """Return the answers of a cell."""
        cell = self.cells[index]
        return Answers(cell.confidence, cell.correct, self.images[1], len(self.images[0]))

    def keys(self, series: Series) -> dict[str, Any]:
        """Return what names a series in a table: its first cell, and the number of seeds."""
        first = self.scores.cells[series.members[0]]
        return keys_of(self.scores, first) | {"seeds": len(series.members)}
