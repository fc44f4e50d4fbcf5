"""Temperature scaling under resampling: fitted on one half of the images, scored on the other."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from prunecal.calibration.debiased import BinTables, debiased_mean, moments_of_each, resampled
from prunecal.calibration.recalibration import GRID, LIMITS
from prunecal.calibration.spline import Spline

NODES = 25  # temperatures at which resamples are binned
SPLINE = Spline(GRID)


@dataclass(frozen=True, eq=False)
class Halves:
    """Clusters split into halves, and the weightings of each: the same for all cells.

    Attributes:
        folds: int [splits, clusters], 0 or 1: the half to which a cluster belongs in each split.
        weights: float64 [clusters, R]; a column of ones is the sample, any other a resample.
    """

    folds: NDArray
    weights: NDArray

    @cached_property
    def clusters(self) -> list[tuple[NDArray, ...]]:
        """The clusters of each half of each split."""
        return [tuple(np.flatnonzero(fold == half) for half in (0, 1)) for fold in self.folds]

    @cached_property
    def by_cluster(self) -> list[list[NDArray]]:
        """The weights of each half, float64 [clusters, R]."""
        return [[self.weights[half] for half in split] for split in self.clusters]

    @cached_property
    def by_weighting(self) -> list[list[NDArray]]:
        """The same transposed, because weightings are selected, float64 [R, clusters]."""
        return [[np.ascontiguousarray(half.T) for half in split] for split in self.by_cluster]

    @cached_property
    def resampled(self) -> NDArray:
        """Which weightings are resamples, bool [R]."""
        return resampled(self.weights)


@dataclass(frozen=True, eq=False)
class Splits:
    """What temperature scaling needs beside a sample's rows.

    Attributes:
        table: `padded` logits, float64 [n, K].
        slope: `slopes` of the rows, float64 [grid, n].
        halves: of the clusters, under the sample's weightings.
        transferred: temperatures of another cell, float64 [splits, 2, R], that are tried on this
            one.
    """

    table: NDArray
    slope: NDArray
    halves: Halves
    transferred: NDArray | None = None


def temperatures(slope: NDArray, cluster: NDArray, halves: Halves) -> NDArray:
    """Return the optimal temperature for the rows of each half under each weighting.

    The likelihood has one optimum in T, where its slope changes sign; between grid points the slope
    is a cubic spline (relative error of T below 1e-4; a test compares with direct minimisation).

    Args:
        slope: `slopes` of the rows, float64 [grid, n].
        cluster: int [n], the row of the weights that weighs each row.
        halves: of the clusters.

    Returns:
        float64 [splits, 2, R]: fitted on half 0 and on half 1, at a limit where the likelihood
        grows to there; NaN where a half has no rows or the likelihood is flat.
    """
    clusters, weightings = halves.weights.shape
    sums = np.stack([np.bincount(cluster, row, clusters) for row in slope])
    count = np.bincount(cluster, minlength=clusters)
    curves, rows = [], []
    for split, weights_of in zip(halves.clusters, halves.by_cluster, strict=True):
        for half, weights in zip(split, weights_of, strict=True):
            curves.append(sums[:, half] @ weights)
            rows.append(count[half] @ weights)
    root = np.where(np.concatenate(rows) > 0, _root(np.hstack(curves)), np.nan)
    return root.reshape(len(halves.folds), 2, weightings)


def _root(curve: NDArray) -> NDArray:
    """Return the T at which each column of slopes [grid, R] turns from negative to positive."""
    positive = curve >= 0
    left = np.clip(np.argmax(positive, axis=0) - 1, 0, len(GRID) - 2)
    a, b, c, d = SPLINE.coefficients(curve, left)
    low, high = np.zeros(len(left)), np.full(len(left), GRID[1] - GRID[0])
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
    halves: Halves,
    split: int,
    fitted: NDArray,
    bins: int,
) -> NDArray:
    """Return the debiased ECE when each half's logits are divided by the other half's temperature.

    Debiased because what is left after temperature scaling is mostly noise. A weighting's
    temperature is replaced by the nearest of `NODES` quantiles of all weightings' temperatures, so
    that rows are binned `NODES` times and not R times; the sample's own is exact.

    Args:
        table: `padded` logits, float64 [n, K].
        correct: bool [n].
        cluster: int [n], the row of the weights that weighs each row.
        halves: of the clusters.
        split: which of the splits into halves.
        fitted: `temperatures`, float64 [2, R], of these logits or, to ask what a temperature
            carries over, of another cell's.
        bins: number of equal-width bins.

    Returns:
        float64 [R]; NaN where a half has no rows to fit on.
    """
    # confidence = 1 / (1 + sum of exp(margin / T)) over the options below the largest
    ordered = -np.sort(-table.T, axis=0)
    margins = ordered[1:] - ordered[:1]
    defined = np.isfinite(fitted).all(axis=0)
    if not defined.any():
        return np.full(fitted.shape[1], np.nan)
    of_halves = []
    for half in (0, 1):
        clusters, weights = halves.clusters[split][half], halves.by_weighting[split][half]
        nodes, order, ends = _nodes(fitted[1 - half], defined)
        inside = np.flatnonzero(halves.folds[split][cluster] == half)
        local = np.searchsorted(clusters, cluster[inside])
        scaled = margins[:, None, inside] / nodes[:, None]
        confidence = 1 / (1 + np.exp(scaled, out=scaled).sum(axis=0))
        tables = BinTables.of_each(confidence, correct[inside], local, len(clusters), bins)
        place = np.zeros(fitted.shape[1], dtype=np.intp)  # of each weighting in the order
        place[order] = np.arange(len(order))
        of_halves.append(moments_of_each(tables, weights[order], ends).take(place, axis=2))
    return np.where(defined, debiased_mean(np.add(*of_halves), halves.resampled), np.nan)


def _nodes(fitted: NDArray, defined: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Return temperatures, weightings in order, and the end of each temperature's weightings.

    The first is that of the first weighting alone, the sample itself.
    """
    draws = np.flatnonzero(defined)
    first, others = draws[:1], draws[1:]
    if not len(others):
        return fitted[first], first, np.array([1])
    log = np.log(fitted[others])
    quantiles = np.unique(np.quantile(log, np.linspace(0, 1, NODES)))
    nearest = np.searchsorted((quantiles[1:] + quantiles[:-1]) / 2, log)
    order = np.append(first, others[np.argsort(nearest, kind="stable")])
    count = np.bincount(nearest, minlength=len(quantiles))
    return np.append(fitted[first], np.exp(quantiles)), order, np.append(1, 1 + np.cumsum(count))
