"""What the unpruned model's threshold of confidence lets through after pruning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prunecal.statistics.accuracy_matched import keys_of
from prunecal.statistics.bootstrap import interval
from prunecal.statistics.significance import p_values
from prunecal.statistics.thresholds import (
    RISK,
    Answers,
    accepted,
    guaranteed_threshold,
    largest_coverage,
    risk_draws,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from prunecal.statistics.tables import Rows
    from prunecal.statistics.task import Task


def threshold_rows(task: Task, level: float) -> Rows:
    """Return a row per cell: the unpruned model's thresholds kept, and thresholds of its own.

    `threshold` has the largest coverage of those with at most 5 % risk in the unpruned model on
    these questions (`largest_coverage`); coverage and risk are the cell's at it, with the interval
    over images at this threshold, and p-values of a risk other than 5 % (`step_down`, all pruned
    cells of a model and data set). The columns `guaranteed_` are the same of the unpruned model's
    threshold with a guarantee (see the function of that name). Those that begin with `own_` are of
    thresholds chosen in the same two ways on the cell's own answers. `silent` says that the cell
    has stopped answering with an option, so that its confidence is of answers it does not give.
    """
    reference = task.scores.reference
    unpruned = task.answers(reference)
    old, tested = largest_coverage(unpruned), guaranteed_threshold(unpruned)
    rows, risks = [], []
    stopped = [one.members for one, silent in zip(task.series, task.silent, strict=True) if silent]
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
            | {"silent": any(index in members for members in stopped)}
            | {
                "own_guaranteed_coverage": _coverage(answers, own[1]),
                "p": np.nan,
                "p_adjusted": np.nan,
            }
        )
    pruned = [index for index in range(len(rows)) if index != reference]
    if pruned and not task.why_not_tested(level):
        table = np.stack([risks[index] for index in pruned]) - RISK
        alone, adjusted = p_values(table[:, 0], table[:, 1:], len(task.images[0]))
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
