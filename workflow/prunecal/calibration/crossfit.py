"""Temperature scaling under resampling: fitted on one half of the images, scored on the other."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from prunecal.calibration.bins import bin_index, gap_ece
from prunecal.calibration.logits import log_probabilities
from prunecal.calibration.recalibration import LIMITS

LOWEST, HIGHEST = np.log(LIMITS)
GRID = np.linspace(LOWEST, HIGHEST, 61)  # of log T


@dataclass(frozen=True, eq=False)
class TwoFolds:
    """What temperature scaling needs beside a sample's rows.

    Attributes:
        table: `padded` logits, float64 [n, K].
        slope: `slopes` of the rows, float64 [grid, n].
        fold: int [clusters], 0 or 1: the half to which a cluster belongs.
        transferred: `temperatures` of another cell, float64 [2, R], that are tried on this one.
    """

    table: NDArray
    slope: NDArray
    fold: NDArray
    transferred: NDArray | None = None


def slopes(table: NDArray, label: NDArray) -> NDArray:
    """Return d(-log p(label)) / d(log T) of each row at each T of the grid, float64 [grid, n]."""
    finite = np.where(np.isfinite(table), table, 0.0)  # missing options have no mass
    own = np.take_along_axis(table, label[:, None], axis=1)[:, 0]
    result = np.empty((len(GRID), len(table)))
    for row, log_temperature in zip(result, GRID, strict=True):
        scale = np.exp(-log_temperature)
        expected = (np.exp(log_probabilities(table * scale)) * finite).sum(axis=1)
        row[:] = (own - expected) * scale
    return result


def temperatures(slope: NDArray, cluster: NDArray, fold: NDArray, weights: NDArray) -> NDArray:
    """Return the optimal temperature for the rows of each fold under each weighting.

    The likelihood has one optimum in T, where its slope changes sign; between grid points the slope
    is a cubic spline (relative error of T below 1e-4; a test compares with direct minimisation).

    Args:
        slope: `slopes` of the rows, float64 [grid, n].
        cluster: int [n], the row of `weights` that weighs each row.
        fold: int [clusters], 0 or 1: the half to which a cluster belongs.
        weights: float64 [clusters, R].

    Returns:
        float64 [2, R]: fitted on fold 0 and on fold 1; NaN where a fold has no rows.
    """
    sums = np.stack([np.bincount(cluster, row, len(weights)) for row in slope])
    count = np.bincount(cluster, minlength=len(weights))
    fitted = []
    for half in (fold == 0, fold == 1):
        root = _root(sums[:, half] @ weights[half])
        fitted.append(np.where(count[half] @ weights[half] > 0, root, np.nan))
    return np.stack(fitted)


def _root(curve: NDArray) -> NDArray:
    """Return the T at which each column of slopes [grid, R] turns from negative to positive."""
    draw = np.arange(curve.shape[1])
    positive = curve >= 0
    left = np.clip(np.argmax(positive, axis=0) - 1, 0, len(GRID) - 2)
    a, b, c, d = CubicSpline(GRID, curve, axis=0).c[:, left, draw]
    low, high = np.zeros(len(draw)), np.full(len(draw), GRID[1] - GRID[0])
    for _ in range(40):
        middle = (low + high) / 2
        above = ((a * middle + b) * middle + c) * middle + d >= 0
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    root = np.exp(GRID[left] + (low + high) / 2)
    root = np.where(positive[0], LIMITS[0], root)  # all correct: the optimum is at T = 0
    return np.where(positive.any(axis=0), root, LIMITS[1])


def cross_fitted_ece(
    table: NDArray,
    correct: NDArray,
    cluster: NDArray,
    fold: NDArray,
    fitted: NDArray,
    weights: NDArray,
    bins: int,
) -> NDArray:
    """Return the ECE when each fold's logits are divided by the other fold's temperature.

    Args:
        table: `padded` logits, float64 [n, K].
        correct: bool [n].
        cluster: int [n], the row of `weights` that weighs each row.
        fold: int [clusters].
        fitted: `temperatures`, float64 [2, R], of these logits or, to ask what a temperature
            carries over, of another cell's.
        weights: float64 [clusters, R].
        bins: number of equal-width bins.

    Returns:
        float64 [R]; NaN where a fold has no rows to fit on.
    """
    result = np.full(weights.shape[1], np.nan)
    # confidence = 1 / (1 + sum of exp(margin / T)) over the options below the largest
    ordered = -np.sort(-table.T, axis=0)
    margins = ordered[1:] - ordered[:1]
    other = 1 - fold[cluster]
    # neighbours of similar confidence: looking up their bins is several times as fast
    order = np.lexsort((margins[0], other)) if len(margins) else np.arange(len(other))
    margins, other = np.ascontiguousarray(margins[:, order]), other[order]
    correct, cluster = correct[order], cluster[order]
    columns = np.ascontiguousarray(weights.T)
    for draw in np.flatnonzero(np.isfinite(fitted).all(axis=0)):
        weight = columns[draw][cluster]
        scaled = margins / fitted[:, draw][other]
        confidence = 1 / (1 + np.exp(scaled).sum(axis=0))
        gap = np.bincount(bin_index(confidence, bins), weight * (confidence - correct), bins)
        result[draw] = gap_ece(gap, weight.sum())
    return result
