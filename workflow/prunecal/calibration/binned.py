"""Calibration error measured in bins of confidence.

Source of the definition: Guo et al., On Calibration of Modern Neural Networks (arXiv 1706.04599),
equations 2, 3 and 5; equal-mass bins: Nixon et al. (arXiv 1904.01685).
"""

from typing import NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prunecal.calibration.bins import bin_edges
from prunecal.calibration.metrics import compute
from prunecal.calibration.sample import Sample, plain


class Reliability(NamedTuple):
    """The arrays behind a reliability diagram; empty bins hold NaN."""

    edges: NDArray  # float64 [bins + 1]
    count: NDArray  # type: ignore[assignment]  # int64 [bins]; a field, not tuple's method
    confidence: NDArray  # float64 [bins], mean confidence of the bin's rows
    accuracy: NDArray  # float64 [bins], share of the bin's rows that are right


def reliability_diagram(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> Reliability:
    """Return mean confidence and accuracy per bin: what a reliability diagram draws.

    Args:
        confidence: probability given to the prediction, [n] in [0, 1].
        correct: whether the prediction is right, [n].
        bins: number of equal-width bins, (lo, hi], the first with 0 in it.

    Raises:
        ValueError: see `sample.plain`.
    """
    sample = plain(confidence, correct, bins)
    count, *sums = (table[:, 0] for table in sample.bin_sums)
    undefined = np.full(len(count), np.nan)
    mean, share = (np.divide(part, count, out=undefined.copy(), where=count > 0) for part in sums)
    return Reliability(bin_edges(sample.bins), count.astype(np.int64), mean, share)


def _value(key: str, sample: Sample) -> float:
    values = cast("NDArray", compute(key, sample))  # every sample has these metrics
    return float(values[0])


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Return by how much confidence misses accuracy, averaged over rows in equal-width bins.

    ECE = sum over bins of (n_b / n) * |accuracy_b - mean confidence_b|; 0 is best, 1 is worst.

    Args:
        confidence: probability given to the prediction, [n] in [0, 1].
        correct: whether the prediction is right, [n].
        bins: number of equal-width bins, (lo, hi], edges k/bins in float64, 0 in the first.

    Raises:
        ValueError: see `sample.plain`.
    """
    return _value("ece", plain(confidence, correct, bins))


def maximum_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Return the largest |accuracy - mean confidence| of any bin that holds a row.

    Args:
        confidence: probability given to the prediction, [n] in [0, 1].
        correct: whether the prediction is right, [n].
        bins: number of equal-width bins, as in `expected_calibration_error`.

    Raises:
        ValueError: see `sample.plain`.
    """
    return _value("mce", plain(confidence, correct, bins))


def adaptive_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Return the calibration error in bins that hold equally many rows.

    Rows are sorted by confidence and cut into `bins` parts whose sizes differ by at most one, the
    larger parts first (as `numpy.array_split` cuts); each part counts by its share of the rows.
    Where a cut falls between rows of equal confidence, each side gets its share of their right
    answers in expectation, so that the order of the rows never matters.

    Args:
        confidence: probability given to the prediction, [n] in [0, 1].
        correct: whether the prediction is right, [n].
        bins: number of parts; with fewer rows than parts, each row is a part.

    Raises:
        ValueError: see `sample.plain`.
    """
    return _value("ace", plain(confidence, correct, bins))
