"""What a change of accuracy alone would do to ECE, and how far a pruned cell is off it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunecal.calibration.bins import BinSums
from prunecal.statistics.bootstrap import interval
from prunecal.statistics.scores import Scores
from prunecal.statistics.significance import FEWEST_IMAGES, p_values
from prunecal.statistics.tables import Rows

Tables = Mapping[str, NDArray]  # metric: the value, then the draws, float64 [cells, 1 + R]


def expected_change(unpruned: BinSums, accuracy_change: NDArray) -> NDArray:
    """Return the change of ECE that a change of accuracy alone would bring, float64 [R].

    Alone means: every answer keeps the unpruned model's confidence, and the accuracy of every bin
    of confidence changes by the same amount d. A bin's gap g = confidence - accuracy becomes g - d,
    so that ECE changes by sum_b (n_b / n) (|g_b - d| - |g_b|): by -d where all bins are
    over-confident and stay so, by d where all are under-confident.

    Args:
        unpruned: bins of the unpruned model, [bins, R].
        accuracy_change: d, float64 [R].
    """
    rows = unpruned.count.sum(axis=0)
    shifted = np.abs(unpruned.gap - unpruned.count * accuracy_change)
    return (shifted - np.abs(unpruned.gap)).sum(axis=0) / rows


def matched_rows(scores: Scores, tables: Tables, unpruned: BinSums, level: float) -> Rows:
    """Return a row per pruned cell: its change of ECE and what accuracy explains of it.

    The family of tests is a model on a data set.
    """
    rows, rests = [], []
    for index, cell in enumerate(scores.cells):
        if index == scores.reference:
            continue
        accuracy, ece = (
            tables[name][index] - tables[name][scores.reference] for name in ("accuracy", "ece")
        )
        expected = expected_change(unpruned, accuracy)
        rests.append(ece - expected)
        low, high = interval(rests[-1][1:], level)
        rows.append(
            keys_of(scores, cell)
            | {"accuracy_delta": accuracy[0], "ece_delta": ece[0], "expected": expected[0]}
            | {"beyond": rests[-1][0], "ci_low": low, "ci_high": high}
        )
    if rows:
        measured = np.stack(rests)
        images = scores.subsets[scores.pooled]["n_images"]
        p = np.full((2, len(rows)), np.nan)
        if images >= FEWEST_IMAGES:
            p[:] = p_values(measured[:, 0], measured[:, 1:], images)
        for row, alone, adjusted in zip(rows, *p, strict=True):
            row |= {"p": alone, "p_adjusted": adjusted}
    return rows


def keys_of(scores: Scores, cell: Mapping[str, Any]) -> dict[str, Any]:
    """Return what names a cell in a table."""
    return scores.task | {key: cell[key] for key in ("strategy", "family", "budget")}
