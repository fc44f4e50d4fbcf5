"""The interval of a number that was selected because it is the smallest or the largest.

The lowest of many estimates is low by luck as well as by merit, so an interval around it that
forgets the selection misses the truth too often.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prunecal.statistics.bootstrap import standard_error
from prunecal.statistics.tables import Rows
from prunecal.statistics.task import Task


def simultaneous_interval(values: ArrayLike, draws: NDArray, level: float = 0.95) -> NDArray:
    """Return intervals that hold all true values at once with a chance of `level`, float64 [2, m].

    Value -+ q s, s the standard deviation of the draws and q the quantile at `level` of the largest
    |draw - mean draw| / s of all members. Whichever member is then selected, for whatever reason,
    its interval covers: the projection interval of Andrews, Kitagawa and McCloskey (Inference on
    Winners, Quarterly Journal of Economics 139, 2024), by resampling.

    Args:
        values: the estimates among which one is selected, float64 [m].
        draws: the same on each resample, float64 [m, R].
        level: the chance that every interval covers.
    """
    values, error = np.asarray(values, dtype=np.float64), standard_error(draws)
    scale = np.where(error > 0, error, 1.0)
    noise = np.abs(draws - np.nanmean(draws, axis=1, keepdims=True)) / scale[:, None]
    q = np.quantile(np.nan_to_num(noise).max(axis=0), level)
    return np.stack([values - q * error, values + q * error])


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
