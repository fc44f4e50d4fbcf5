"""What a deployment asks of a pruned model: may its confidence be used as before?

Three answers per model and data set, over all questions (subset "all"). Whether a strategy at a
budget is shown to be no worse than the unpruned model by more than the study's margins, and the
smallest budget down to which it is. What the unpruned model's confidence threshold lets through
after pruning. Which cell has the lowest ECE and the highest accuracy, with an interval that
accounts for the selection. Seeds of one strategy count as one, by their mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from prunecal.statistics.accuracy_matched import keys_of
from prunecal.statistics.bootstrap import image_weights, interval, normal_interval
from prunecal.statistics.contrasts import unseeded
from prunecal.statistics.noninferiority import (
    noninferiority_p,
    passed,
    provable_margin,
)
from prunecal.statistics.selection import simultaneous_interval
from prunecal.statistics.selectors import ANSWER_RATES, ANSWERING
from prunecal.statistics.significance import FEWEST_IMAGES, step_down
from prunecal.statistics.thresholds import (
    RISK,
    Answers,
    accepted,
    guaranteed_threshold,
    largest_coverage,
    risk_draws,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from prunecal.statistics.predictions import Cell
    from prunecal.statistics.scores import Scores
    from prunecal.statistics.tables import Rows

LEVEL = 0.05  # of each family of tests
NO_WORSE, WORSE, UNKNOWN = "no worse", "worse", "cannot be told"
CELL = ("model", "dataset", "strategy", "family", "budget")
COLUMNS = {  # of the tables
    "trust": (
        "model", "dataset", "strategy", "family", "seeds", "smallest_budget", "next_budget",
        "at_next", "smallest_budget_recalibrated", "accuracy_margin", "ece_margin", "n_images",
    ),
    "trust_cells": (
        *CELL, "seeds", "accuracy_delta", "accuracy_delta_low", "accuracy_delta_high",
        "p_accuracy", "ece_delta", "ece_delta_low", "ece_delta_high", "p_ece", "verdict",
        "ece_recalibrated_delta", "p_recalibrated", "verdict_recalibrated", "overconfidence",
        "ece_debiased", "ece_temperature", "accuracy_provable", "ece_provable",
    ),
    "thresholds": (
        *CELL, "threshold", "coverage", "risk", "risk_low", "risk_high", "p", "p_adjusted",
        "guaranteed_threshold", "guaranteed_coverage", "guaranteed_risk", "own_threshold",
        "own_coverage", "own_guaranteed_threshold", "own_guaranteed_coverage",
    ),
    "selected": (
        "model", "dataset", "selection", "metric", "strategy", "family", "budget", "seeds",
        "value", "ci_low", "ci_high", "among",
    ),
}  # fmt: skip


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


def trust_rows(task: Task, level: float) -> tuple[Rows, Rows]:
    """Return a row per strategy, and a row per strategy and budget.

    A cell is "no worse" if its accuracy is shown to be lower by less than the margin and its
    ECE to be higher by less than the margin, both within one family of tests: the
    larger of the two p-values of `noninferiority_p`, in `passed`, a chain per strategy from its
    largest budget down. So with a chance of at most 5 % any cell of a model and data set is called
    no worse that is worse by a margin or more. Calibration is compared by debiased ECE, the
    unpruned model's by the cross-fitted one. A cell is "worse" if accuracy or debiased ECE is shown
    to be worse by more than the margin, by `step_down` on the differences less the margin, over all
    strategies, budgets and the two metrics. Else it cannot be told. A cell that has stopped
    answering with an option is not "no worse". `verdict_recalibrated` asks the
    same of the ECE after refitting one temperature to the pruned model, another family of tests.
    """
    if not task.series:
        return [], []
    margins = task.margins
    lost = task.unpruned("accuracy") - task.measure("accuracy")
    gained = task.measure("ece_debiased") - task.unpruned("ece_debiased")
    # noise has no part in it, where it would make the unpruned model look worse than it is and a
    # pruned one as good: debiased ECE is too high, by up to 0.006, where the true one is near 0
    unpruned_ece = task.unpruned("ece_cross_fitted")
    safe = task.measure("ece_debiased") - unpruned_ece
    refitted = task.measure("ece_temperature") - unpruned_ece
    recalibrated = task.measure("ece_temperature") - task.unpruned("ece_debiased")
    count = len(task.images[0])
    strategies = len({one.name for one in task.series})
    tests = ((lost, "accuracy"), (safe, "ece"), (refitted, "ece"))
    p = np.stack([noninferiority_p(*harm, margins[key], count) for harm, key in tests])
    p[:, task.silent] = 1.0  # its confidence is of answers that it does not give
    if not task.enough:
        p[:] = np.nan
    numbers = {
        "accuracy_delta": -lost.value,
        "p_accuracy": p[0],
        "ece_delta": gained.value,
        "p_ece": p[1],
        "ece_recalibrated_delta": recalibrated.value,
        "p_recalibrated": p[2],
        **{key: task.measure(key).value for key in ("overconfidence", "ece_debiased")},
        "ece_temperature": task.measure("ece_temperature").value,
        "accuracy_provable": provable_margin(lost.draws, strategies),
        "ece_provable": provable_margin(safe.draws, strategies),
    }
    low, high = interval(-lost.draws, level)
    numbers |= {"accuracy_delta_low": low, "accuracy_delta_high": high}
    low, high = normal_interval(gained.value, gained.draws, level)
    numbers |= {"ece_delta_low": low, "ece_delta_high": high}
    verdicts = {
        "verdict": _verdicts(task, np.maximum(p[0], p[1]), (lost, gained)),
        "verdict_recalibrated": _verdicts(task, np.maximum(p[0], p[2]), (lost, recalibrated)),
    }
    cells = [
        task.keys(one)
        | {key: column[index] for key, column in numbers.items()}
        | {key: column[index] for key, column in verdicts.items()}
        for index, one in enumerate(task.series)
    ]
    rows = []
    for name in dict.fromkeys(one.name for one in task.series):
        own = [cell for cell, one in zip(cells, task.series, strict=True) if one.name == name]
        rows.append(
            {key: own[0][key] for key in ("model", "dataset", "strategy", "family", "seeds")}
            | _reached(own)
            | {"smallest_budget_recalibrated": _smallest(own, "verdict_recalibrated")}
            | {"accuracy_margin": margins["accuracy"], "ece_margin": margins["ece"]}
            | {"n_images": count}
        )
    return rows, cells


def _reached(cells: Rows) -> dict[str, Any]:
    """Return how far down a strategy is no worse, and the next budget with its verdict."""
    rest = [cell for cell in cells if cell["verdict"] != NO_WORSE]
    return {
        "smallest_budget": _smallest(cells, "verdict"),
        "next_budget": rest[0]["budget"] if rest else None,
        "at_next": rest[0]["verdict"] if rest else None,
    }


def _smallest(cells: Rows, verdict: str) -> int | None:
    """Return the smallest budget of a strategy that is no worse; all larger ones are, too."""
    return min((cell["budget"] for cell in cells if cell[verdict] == NO_WORSE), default=None)


def _verdicts(task: Task, p: NDArray, harms: tuple[Measure, Measure]) -> list[str]:
    """Return the verdict on each series: see `trust_rows`."""
    verdicts = [UNKNOWN] * len(p)
    if not task.enough:
        return verdicts
    margins = (task.margins["accuracy"], task.margins["ece"])
    shared = min(harm.draws.shape[1] for harm in harms)
    beyond = [harm.value - margin for harm, margin in zip(harms, margins, strict=True)]
    draws = [harm.draws[:, :shared] for harm in harms]
    draws = [np.broadcast_to(one, (len(p), shared)) for one in draws]
    worse = step_down(np.concatenate(beyond), np.concatenate(draws)).reshape(2, -1) < LEVEL
    chains: dict[str, list[int]] = {}
    for index, one in enumerate(task.series):
        chains.setdefault(one.name, []).append(index)
    counts = passed({name: p[places].tolist() for name, places in chains.items()}, LEVEL)
    for name, places in chains.items():
        for position, at in enumerate(places):
            if position < counts[name]:
                verdicts[at] = NO_WORSE
            elif any(side[at] and over[at] > 0 for side, over in zip(worse, beyond, strict=True)):
                verdicts[at] = WORSE
    return verdicts


def threshold_rows(task: Task, level: float) -> Rows:
    """Return a row per cell: the unpruned model's thresholds kept, and thresholds of its own.

    `threshold` has the largest coverage of those with at most 5 % risk in the unpruned model on
    these questions (`largest_coverage`); coverage and risk are the cell's at it, with the interval
    over images at this threshold, and p-values of a risk other than 5 % (`step_down`, all pruned
    cells of a model and data set). The columns `guaranteed_` are the same of the unpruned model's
    threshold with a guarantee (see the function of that name). Those that begin with `own_` are of
    thresholds chosen in the same two ways on the cell's own answers.
    """
    reference = task.scores.reference
    unpruned = task.answers(reference)
    old, tested = largest_coverage(unpruned), guaranteed_threshold(unpruned)
    rows, risks = [], []
    for index, cell in enumerate(task.scores.cells):
        answers = task.answers(index)
        own = largest_coverage(answers), guaranteed_threshold(answers)
        kept = _kept(task, answers, old)
        risks.append(kept[1])
        coverage, risk, bounds = kept[0][0], kept[1][0], _bounds(kept, level)
        guaranteed_coverage, guaranteed_risk = (one[0] for one in _kept(task, answers, tested)[:2])
        rows.append(
            keys_of(task.scores, cell)
            | {"threshold": old, "coverage": coverage, "risk": risk}
            | {"risk_low": bounds[0], "risk_high": bounds[1]}
            | {"guaranteed_threshold": tested, "guaranteed_coverage": guaranteed_coverage}
            | {"guaranteed_risk": guaranteed_risk, "own_threshold": own[0]}
            | {"own_coverage": _coverage(answers, own[0]), "own_guaranteed_threshold": own[1]}
            | {
                "own_guaranteed_coverage": _coverage(answers, own[1]),
                "p": np.nan,
                "p_adjusted": np.nan,
            }
        )
    pruned = [index for index in range(len(rows)) if index != reference]
    if pruned and task.enough:
        table = np.stack([risks[index] for index in pruned]) - RISK
        adjusted = step_down(table[:, 0], table[:, 1:])
        alone = [step_down(one[:1], one[None, 1:])[0] for one in table]
        for index, one, all_of_them in zip(pruned, alone, adjusted, strict=True):
            rows[index] |= {"p": one, "p_adjusted": all_of_them}
    return rows


def _kept(task: Task, answers: Answers, threshold: float) -> tuple[NDArray, NDArray, float]:
    """Return coverage and risk at a threshold, float64 [1 + R], and the images that it reaches."""
    if np.isnan(threshold):
        nothing = np.full(task.weights.shape[1], np.nan)
        return nothing, nothing, 0.0
    table = accepted(answers, [threshold, -1.0])
    coverage, risk = risk_draws(table, task.weights)
    return coverage, risk, float((table.answered[0] > 0).sum())


def _bounds(kept: tuple[NDArray, NDArray, float], level: float) -> tuple[float, float]:
    """Return the interval of the risk; without an error, up to what chance could have hidden."""
    _, risk, images = kept
    if np.isnan(risk[0]) or images < 2:
        return np.nan, np.nan
    low, high = interval(risk[1:], level)
    return float(low), float(high) if risk[0] > 0 else 1 - ((1 - level) / 2) ** (1 / images)


def _coverage(answers: Answers, threshold: float) -> float:
    """Return the share of answers that a threshold accepts: none without a threshold."""
    return float((answers.confidence >= threshold).mean())


def selected_rows(task: Task, level: float) -> Rows:
    """Return the cell with the lowest debiased ECE, and that with the highest accuracy.

    The second among those at the smallest budget. Intervals are `simultaneous_interval` over all
    cells among which was selected; cells that stop answering are not among them.
    """
    answering = ~task.silent
    if not answering.any():
        return []
    budget = np.array([one.budget for one in task.series])
    last = answering & (budget == budget[answering].min())
    choices = (
        ("lowest", "ece_debiased", 1, answering),
        ("highest at the smallest budget", "accuracy", -1, last),
    )
    rows = []
    for selection, metric, sign, among in choices:
        value, draws = (part[among] for part in task.measure(metric))
        ends = np.full((2, len(value)), np.nan)
        if task.enough:
            ends = np.clip(simultaneous_interval(value, draws, level), 0, 1)
        best = int(np.argmin(sign * value))
        series = task.series[np.flatnonzero(among)[best]]
        rows.append(
            task.keys(series)
            | {"selection": selection, "metric": metric, "value": value[best]}
            | {"ci_low": ends[0, best], "ci_high": ends[1, best], "among": len(value)}
        )
    return rows
