"""Temperature scaling under resampling: fitted on one half of the images, scored on the other."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from prunecal.calibration.debiased import BinTables, debiased_mean
from prunecal.calibration.recalibration import GRID, LIMITS

NODES = 25  # temperatures at which resamples are binned


@dataclass(frozen=True, eq=False)
class Splits:
    """What temperature scaling needs beside a sample's rows.

    Attributes:
        table: `padded` logits, float64 [n, K].
        slope: `slopes` of the rows, float64 [grid, n].
        folds: int [splits, clusters], 0 or 1: the half to which a cluster belongs in each split.
        transferred: temperatures of another cell, float64 [splits, 2, R], that are tried on this
            one.
    """

    table: NDArray
    slope: NDArray
    folds: NDArray
    transferred: NDArray | None = None


def temperatures(slope: NDArray, cluster: NDArray, folds: NDArray, weights: NDArray) -> NDArray:
    """Return the optimal temperature for the rows of each fold under each weighting.

    The likelihood has one optimum in T, where its slope changes sign; between grid points the slope
    is a cubic spline (relative error of T below 1e-4; a test compares with direct minimisation).

    Args:
        slope: `slopes` of the rows, float64 [grid, n].
        cluster: int [n], the row of `weights` that weighs each row.
        folds: int [splits, clusters], 0 or 1: the half to which a cluster belongs in each split.
        weights: float64 [clusters, R].

    Returns:
        float64 [splits, 2, R]: fitted on fold 0 and on fold 1, at a limit where the likelihood
        grows to there; NaN where a fold has no rows or the likelihood is flat.
    """
    sums = np.stack([np.bincount(cluster, row, len(weights)) for row in slope])
    count = np.bincount(cluster, minlength=len(weights))
    fitted = np.empty((len(folds), 2, weights.shape[1]))
    for split, fold in enumerate(folds):
        for number in (0, 1):
            half = np.flatnonzero(fold == number)
            of_half = weights[half]
            root = _root(sums[:, half] @ of_half)
            fitted[split, number] = np.where(count[half] @ of_half > 0, root, np.nan)
    return fitted


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
    root = np.where(positive.any(axis=0), root, LIMITS[1])
    return np.where(curve.any(axis=0), root, np.nan)


def cross_fitted_ece(
    table: NDArray,
    correct: NDArray,
    cluster: NDArray,
    fold: NDArray,
    fitted: NDArray,
    weights: NDArray,
    bins: int,
) -> NDArray:
    """Return the debiased ECE when each fold's logits are divided by the other fold's temperature.

    Debiased because what is left after temperature scaling is mostly noise. A weighting's
    temperature is replaced by the nearest of `NODES` quantiles of all weightings' temperatures, so
    that rows are binned `NODES` times and not R times; the sample's own is exact.

    Args:
        table: `padded` logits, float64 [n, K].
        correct: bool [n].
        cluster: int [n], the row of `weights` that weighs each row.
        fold: int [clusters].
        fitted: `temperatures`, float64 [2, R], of these logits or, to ask what a temperature
            carries over, of another cell's.
        weights: float64 [clusters, R]; a column of ones is the sample, any other a resample.
        bins: number of equal-width bins.

    Returns:
        float64 [R]; NaN where a fold has no rows to fit on.
    """
    # confidence = 1 / (1 + sum of exp(margin / T)) over the options below the largest
    ordered = -np.sort(-table.T, axis=0)
    margins = ordered[1:] - ordered[:1]
    defined = np.isfinite(fitted).all(axis=0)
    moments = np.zeros((6, bins, weights.shape[1]))
    for half in (0, 1):
        inside = np.flatnonzero(fold[cluster] == half)
        clusters = np.flatnonzero(fold == half)
        local = np.searchsorted(clusters, cluster[inside])
        half_weights = weights[clusters].T
        nodes, draws = _nodes(fitted[1 - half], defined)
        scaled = margins[:, None, inside] / np.array(nodes)[:, None]
        confidence = 1 / (1 + np.exp(scaled).sum(axis=0))
        tables = BinTables.of_each(confidence, correct[inside], local, len(clusters), bins)
        for binned, some in zip(tables, draws, strict=True):
            moments[:, :, some] += binned.moments(half_weights[some].T)
    return np.where(defined, debiased_mean(moments, weights), np.nan)


def _nodes(fitted: NDArray, defined: NDArray) -> tuple[list[float], list[NDArray]]:
    """Return temperatures, and the weightings that belong to each, int [some of R]."""
    draws = np.flatnonzero(defined)
    if not len(draws):
        return [], []
    first, others = draws[:1], draws[1:]
    nodes, groups = [float(fitted[first[0]])], [first]
    if len(others):
        log = np.log(fitted[others])
        quantiles = np.unique(np.quantile(log, np.linspace(0, 1, NODES)))
        nearest = np.searchsorted((quantiles[1:] + quantiles[:-1]) / 2, log)
        nodes += [float(np.exp(node)) for node in quantiles]
        groups += [others[nearest == index] for index in range(len(quantiles))]
    return nodes, groups
