"""Rows in equal-width bins of confidence, under many weightings at once: ECE and its relatives.

Everything here is made of three sums per bin and weighting: of rows, of their confidence and of
their correctness.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prunecal.calibration.ranked import ratio


def bin_edges(bins: int) -> NDArray:
    """Return the edges 0, 1/bins, …, 1 as float64 quotients [bins + 1]."""
    return np.arange(bins + 1) / bins


def bin_index(confidence: NDArray, bins: int) -> NDArray:
    """Return each confidence's bin, int64 [n]: bin b holds b/bins < confidence <= (b+1)/bins.

    A confidence of 0 belongs to the first bin.
    """
    return np.searchsorted(bin_edges(bins)[1:-1], confidence, side="left")


def bin_use(confidence: NDArray, bins: int) -> tuple[int, float]:
    """Return how many bins hold a row, and the share of the rows in the fullest one.

    With two options no confidence is below 0.5, so that 15 bins of [0, 1] are 8; errors that grow
    with the number of bins may not be compared with those of questions with more options.

    Args:
        confidence: float64 [n].
        bins: number of equal-width bins.
    """
    count = np.bincount(bin_index(confidence, bins))
    return int((count > 0).sum()), float(count.max() / len(confidence))


class BinSums(NamedTuple):
    """Sums over the rows of each bin, float64 [bins, R]."""

    count: NDArray  # type: ignore[assignment]  # a field, not tuple's method
    confidence: NDArray
    correct: NDArray

    @property
    def gap(self) -> NDArray:
        """The sum of (confidence - correct) in each bin."""
        return self.confidence - self.correct

    @property
    def rows(self) -> NDArray:
        """The number of rows of each weighting, float64 [R]; NaN where there is none."""
        rows = self.count.sum(axis=0)
        return np.where(rows > 0, rows, np.nan)

    def ece(self) -> NDArray:
        """Return the expected calibration error, float64 [R]."""
        return gap_ece(self.gap, self.rows)

    def ece_over(self) -> NDArray:
        """Return the part of ECE from bins whose confidence is above their accuracy."""
        return np.maximum(self.gap, 0).sum(axis=0) / self.rows

    def ece_under(self) -> NDArray:
        """Return the part of ECE from bins whose confidence is below their accuracy."""
        return np.maximum(-self.gap, 0).sum(axis=0) / self.rows

    def mce(self) -> NDArray:
        """Return the largest |mean confidence - accuracy| of any bin that holds a row."""
        largest = (np.abs(self.gap) / np.maximum(self.count, 1)).max(axis=0)
        return np.where(self.count.sum(axis=0) > 0, largest, np.nan)

    def brier_reliability(self) -> NDArray:
        """Return the reliability term of the Brier score (Murphy 1973), float64 [R]."""
        return (self.gap**2 / np.maximum(self.count, 1)).sum(axis=0) / self.rows

    def brier_resolution(self) -> NDArray:
        """Return the resolution term of the Brier score (Murphy 1973), float64 [R]."""
        accuracy = self.correct.sum(axis=0) / self.rows
        spread = (self.correct / np.maximum(self.count, 1) - accuracy) ** 2
        return (self.count * spread).sum(axis=0) / self.rows

    def brier_uncertainty(self) -> NDArray:
        """Return the uncertainty term of the Brier score (Murphy 1973), float64 [R]."""
        accuracy = self.correct.sum(axis=0) / self.rows
        return accuracy * (1 - accuracy)


def bin_sums(
    confidence: NDArray, correct: NDArray, cluster: NDArray, weights: NDArray, bins: int
) -> BinSums:
    """Return the weighted sums per bin.

    Arguments are as the attributes of `sample.Sample`.
    """
    clusters = len(weights)
    cell = bin_index(confidence, bins) * clusters + cluster
    columns = (None, confidence, correct)
    tables = (np.bincount(cell, column, bins * clusters) for column in columns)
    return BinSums(*(table.reshape(bins, clusters) @ weights for table in tables))


def gap_ece(gap: NDArray, rows: NDArray) -> NDArray:
    """Return ECE = sum over bins of |gap| / rows, from the sums of (confidence - correct) per bin.

    Args:
        gap: float64 [bins, R] or [bins].
        rows: number of rows, float64 [R] or a number; NaN results where it is 0 or NaN.
    """
    return ratio(np.abs(gap).sum(axis=0), rows)
