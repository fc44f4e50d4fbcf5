"""Calibration error in bins that hold equally many rows, for many weightings at once."""

import numpy as np
from numpy.typing import NDArray

from prunecal.calibration.ranked import ratio, running_sum, sum_by

BLOCK = 32  # groups of tied rows


def adaptive_calibration_errors(
    confidence: NDArray, correct: NDArray, cluster: NDArray, weights: NDArray, bins: int
) -> NDArray:
    """Return the error of `adaptive_calibration_error` under each weighting, float64 [R].

    The sum of (confidence - correct) over the k least confident rows is a curve over k, linear
    within a group of tied rows in expectation; a bin's gap is the curve's rise across the bin.
    Coarse blocks of groups locate each cut, then only the block that holds it is looked at closely.

    Arguments are as the attributes of `sample.Sample`.
    """
    order = np.argsort(confidence, kind="stable")
    confidence, correct, cluster = confidence[order], correct[order], cluster[order]
    _, first = np.unique(confidence, return_index=True)  # first row of each group
    residual = confidence - correct
    group = np.repeat(np.arange(len(first)), np.diff([*first, len(confidence)]))
    block, blocks = group // BLOCK, int(group[-1]) // BLOCK + 1
    ends = running_sum(sum_by(block, cluster, np.ones(len(group)), blocks, weights))
    heights = running_sum(sum_by(block, cluster, residual, blocks, weights))
    size, larger = np.divmod(ends[-1], bins)  # the first bins hold one row more
    cut = np.arange(bins + 1)[:, None]
    cuts = cut * size + np.minimum(cut, larger)
    inside = _first_reaching(ends, cuts)
    curve = np.empty(cuts.shape)
    entries = np.argsort(inside, axis=None, kind="stable")  # the cuts of a block beside each other
    numbers, begin = np.unique(inside.ravel()[entries], return_index=True)
    for number, entry in zip(numbers, np.split(entries, begin[1:]), strict=True):
        column, k = entry % len(larger), cuts.ravel()[entry]
        rows = slice(*np.searchsorted(block, [number, number + 1]))
        starts = first[number * BLOCK : (number + 1) * BLOCK] - rows.start
        at: NDArray | slice = column
        if 2 * len(entry) > len(larger):
            used = weights[cluster[rows]]
        else:
            used, at = weights[cluster[rows, None], column], slice(None)
        before = ends[number - 1, column] if number else 0.0
        foot = heights[number - 1, column] if number else 0.0
        curve.ravel()[entry] = foot + _rise(used, residual[rows, None], starts, k - before, at)
    return ratio(np.abs(np.diff(curve, axis=0)).sum(axis=0), ends[-1])


def _rise(
    used: NDArray, residual: NDArray, starts: NDArray, k: NDArray, column: NDArray | slice
) -> NDArray:
    """Return the rise of the curve over the first k rows of a block, float64 [entries].

    Args:
        used: how often each row counts, float64 [rows, columns].
        residual: float64 [rows, 1].
        starts: first row of each group of tied rows.
        k: float64 [entries].
        column: of `used` for each entry.
    """
    sizes, rises = used, used * residual
    if len(starts) < len(used):
        sizes, rises = (np.add.reduceat(table, starts, axis=0) for table in (sizes, rises))
    ends = running_sum(sizes)[:, column]
    last = (ends < k).sum(axis=0)  # the group that is cut: all before it count in full
    entry, column = np.arange(len(k)), np.arange(used.shape[1])[column]
    size = sizes[last, column]
    taken = (k - (ends[last, entry] - size)) / np.maximum(size, 1)
    whole = np.where(last > 0, running_sum(rises)[last - 1, column], 0.0)
    return whole + taken * rises[last, column]


def _first_reaching(ascending: NDArray, target: NDArray) -> NDArray:
    """Return per column the first row of `ascending` [rows, R] that is >= `target` [..., R]."""
    low = np.zeros(target.shape, dtype=np.intp)
    high = np.full(target.shape, len(ascending) - 1)
    column = np.arange(ascending.shape[1])
    for _ in range(len(ascending).bit_length()):
        middle = (low + high) // 2
        reached = ascending[middle, column] >= target
        high = np.where(reached, middle, high)
        low = np.where(reached, low, np.minimum(middle + 1, high))
    return low
