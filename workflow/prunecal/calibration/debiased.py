"""ECE less what sampling noise adds to it, with errors over clusters (images) of rows.

A bin whose mean gap has the standard error s shows |gap| of a folded normal around its true gap.
What the mean of that folded normal has above |gap|, estimated at the observed gap, is taken off
(Kumar et al., Verified Uncertainty Calibration, arXiv 1909.10155, section 5, here in closed form).
Two things differ from there. The error is over images, whose rows are not independent. And a
resample holds the noise of the sample and its own, so its error counts sqrt(2) times: otherwise the
resamples lie above the value, and their interval misses a small ECE.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from prunecal.calibration.bins import bin_index
from prunecal.calibration.maps import equal_mass_index
from prunecal.calibration.ranked import ratio

FEW = 32  # clusters, on which nearly every resample already differs from the sample


class BinTables(NamedTuple):
    """Sums over the rows of each bin and cluster, float64 [bins, clusters]."""

    rows: NDArray
    gap: NDArray  # of confidence - correctness
    correct: NDArray

    @classmethod
    def of(
        cls, confidence: NDArray, correct: NDArray, cluster: NDArray, clusters: int, bins: int
    ) -> BinTables:
        """Sum rows per bin of confidence and cluster."""
        place = bin_index(confidence, bins)
        return cls.at(place, confidence, correct, cluster, clusters, bins)

    @classmethod
    def at(
        cls,
        place: NDArray,
        confidence: NDArray,
        correct: NDArray,
        cluster: NDArray,
        clusters: int,
        bins: int,
    ) -> BinTables:
        """Sum rows per cluster and bin, `place` being the bin of each row, int [n]."""
        cell = place * clusters + cluster
        columns = (None, confidence - correct, correct)
        tables = (np.bincount(cell, column, bins * clusters) for column in columns)
        return cls(*(table.reshape(bins, clusters).astype(np.float64) for table in tables))

    @classmethod
    def of_each(
        cls, confidence: NDArray, correct: NDArray, cluster: NDArray, clusters: int, bins: int
    ) -> BinTables:
        """Sum the same rows at several confidences, float64 [confidences, n].

        Returns:
            The sums, float64 [confidences, bins, clusters].
        """
        number = np.arange(len(confidence))[:, None] * bins
        cell = (number + bin_index(confidence, bins)) * clusters + cluster
        shape = len(confidence), bins, clusters
        size = len(confidence) * bins * clusters
        gap = np.bincount(cell.ravel(), (confidence - correct).ravel(), size)
        cell += size * correct
        wrong, right = (
            np.bincount(cell.ravel(), minlength=2 * size).astype(np.float64).reshape(2, -1)
        )
        return cls(*(table.reshape(shape) for table in (wrong + right, gap, right)))

    def moments(self, weights: NDArray) -> NDArray:
        """Return what `debiased_total` needs, float64 [6, bins, R]; it adds up over clusters.

        Args:
            weights: how often each cluster counts, float64 [clusters, R].
        """
        return self._moments(weights, np.any(self.rows, axis=1))

    def _moments(self, weights: NDArray, filled: NDArray) -> NDArray:
        """Return `moments`; `filled` tells which bins hold a row, bool [bins]."""
        if weights.shape[1] == 1:  # a product with a vector: its rounding depends on the rows
            return np.stack([table @ weights for table in self._with_products()])
        used = np.flatnonzero(filled)  # with two options half of the bins are empty
        low, high = used[[0, -1]] if len(used) else (0, 0)
        bins = slice(low, high + 1) if high + 1 - low == len(used) else used
        tables = BinTables(*(table[bins] for table in self))._with_products()
        moments = np.zeros((len(tables), len(filled), weights.shape[1]))
        products = np.concatenate(tables) @ weights
        moments[:, bins] = products.reshape(len(tables), len(used), -1)
        return moments

    def _with_products(self) -> tuple[NDArray, ...]:
        rows, gap, correct = self
        return rows, gap, correct, gap * gap, rows * rows, gap * rows


def moments_of_each(tables: BinTables, weights: NDArray, ends: NDArray) -> NDArray:
    """Return `BinTables.moments` at several confidences, float64 [6, bins, R].

    Args:
        tables: from `BinTables.of_each`.
        weights: of the clusters, float64 [R, clusters].
        ends: after the last weighting of each confidence, int [confidences].
    """
    filled, start, parts = np.any(tables.rows, axis=2), 0, []
    for number, end in enumerate(ends):
        some = BinTables(*(table[number] for table in tables))
        parts.append(some._moments(weights[start:end].T, filled[number]))
        start = end
    return np.concatenate(parts, axis=2)


def debiased_total(moments: NDArray, resampled: NDArray) -> NDArray:
    """Return the debiased sum over bins of |sum of gaps|, float64 [R].

    Args:
        moments: see `BinTables.moments`.
        resampled: bool [R], which weightings are resamples and not the sample itself.
    """
    rows, total, right, gap_square, rows_square, gap_rows = moments
    count = np.maximum(rows, 1)
    mean, accuracy = total / count, right / count
    square = gap_square + mean**2 * rows_square - 2 * mean * gap_rows
    over_clusters = np.sqrt(np.maximum(square, 0)) / count
    # the binomial error bounds it from below: a bin of one image has no error over images
    binomial = np.sqrt(np.maximum(accuracy * (1 - accuracy), 0) / np.maximum(count - 1, 1))
    error = np.maximum(over_clusters, binomial)
    error[:, resampled] *= np.sqrt(2)
    gap = np.abs(mean)
    z = np.divide(gap, error, out=np.full_like(gap, np.inf), where=error > 0)
    folded = error * np.sqrt(2 / np.pi) * np.exp(-(z**2) / 2) + gap * erf(z / np.sqrt(2))
    return (rows * (2 * gap - folded)).sum(axis=0)


def debiased_mean(moments: NDArray, resampled: NDArray) -> NDArray:
    """Return `debiased_total` per row, float64 [R]; NaN where a weighting has no rows."""
    rows = moments[0].sum(axis=0)
    if len(rows) > 1:  # the sum of a single weighting is rounded by its number of bins
        moments = moments[:, moments[0].any(axis=1)]
    total = debiased_total(moments, resampled)
    return np.divide(total, rows, out=np.full(len(rows), np.nan), where=rows > 0)


def resampled(weights: NDArray) -> NDArray:
    """Return which weightings are resamples: a column of ones is the sample itself, bool [R]."""
    result = (weights[:FEW] != 1).any(axis=0)  # nearly all of them differ there already
    rest = np.flatnonzero(~result)
    result[rest] = (weights[FEW:, rest] != 1).any(axis=0)
    return result


def debiased_ece(
    confidence: NDArray, correct: NDArray, cluster: NDArray, weights: NDArray, bins: int
) -> NDArray:
    """Return the debiased ECE of rows, float64 [R]; it can fall below 0.

    Arguments are as the attributes of `sample.Sample`; of the weights, a column of ones is the
    sample, any other a resample.
    """
    tables = BinTables.of(confidence, correct, cluster, len(weights), bins)
    return debiased_mean(tables.moments(weights), resampled(weights))


def debiased_ace(
    confidence: NDArray, correct: NDArray, cluster: NDArray, weights: NDArray, bins: int
) -> NDArray:
    """Return the debiased ECE in bins of equally many rows, float64 [R].

    A resample keeps the sample's bins. Arguments are as those of `debiased_ece`.
    """
    place = equal_mass_index(confidence, bins)
    tables = BinTables.at(place, confidence, correct, cluster, len(weights), bins)
    return debiased_mean(tables.moments(weights), resampled(weights))


def unbiased_miscalibration(tables: BinTables, weights: NDArray) -> NDArray:
    """Return the mean over rows of the squared gap of their bin, without bias, float64 [R].

    The square of a bin's sum of gaps is a sum over pairs of rows; pairs of one image, whose noise
    is no product of two, are left out (Ferro and Fricker, Quarterly Journal of the Royal
    Meteorological Society 138, 2012, for rows that are independent). It can fall below 0.

    Args:
        tables: sums of the rows.
        weights: float64 [clusters, R].
    """
    gap, rows = tables.gap @ weights, tables.rows @ weights
    pairs = gap**2 - tables.gap**2 @ weights**2
    return ratio((pairs / np.maximum(rows, 1)).sum(axis=0), rows.sum(axis=0))


def cross_fitted_signs(tables: BinTables, folds: NDArray, weights: NDArray) -> NDArray:
    """Return an ECE that is in expectation no larger than the true one, float64 [R].

    The sign of a bin's gap is taken from one half of the clusters and its size from the other, so
    that noise cancels instead of adding up; a wrong sign can only make it smaller. Mean over
    splits. The lower end of its interval is a lower bound of the ECE.

    Args:
        tables: sums of the rows.
        folds: int [splits, clusters], 0 or 1.
        weights: float64 [clusters, R].
    """
    whole, total = tables.gap @ weights, np.zeros(weights.shape[1])
    for fold in folds:
        inside = np.flatnonzero(fold)
        half = tables.gap[:, inside] @ weights[inside]
        rest = whole - half
        total += (np.sign(half) * rest + np.sign(rest) * half).sum(axis=0)
    return ratio(total / len(folds), tables.rows.sum(axis=0) @ weights)


def ece_if_calibrated(tables: BinTables, signs: NDArray) -> NDArray:
    """Return the ECE that a calibrated model would show, by the wild bootstrap, float64 [R].

    Under calibration the residuals (confidence - correctness) of an image have mean 0, whatever its
    answers have in common; each replicate gives all residuals of an image one random sign (Cameron,
    Gelbach and Miller, Review of Economics and Statistics 90, 2008).

    Args:
        tables: sums of the rows.
        signs: 1 or -1 per cluster, float64 [clusters, R].
    """
    return np.abs(tables.gap @ signs).sum(axis=0) / tables.rows.sum()
