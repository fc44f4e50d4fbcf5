"""Checks of the input of calibration metrics."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

# option logits; rows may differ in their number of options
LogitRows = NDArray | Sequence[ArrayLike]


def checked(confidence: ArrayLike, correct: ArrayLike) -> tuple[NDArray, NDArray]:
    """Return confidence as float64 and correctness as bool, both [n].

    Raises:
        ValueError: the two differ in length, are empty or not one-dimensional; a confidence is NaN
            or outside [0, 1]; a value of `correct` is neither true nor false (0 and 1 are fine).
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    outcome = np.asarray(correct)
    if confidence.ndim != 1 or confidence.shape != outcome.shape:
        raise ValueError(
            "confidence and correct must be one-dimensional and of one length, "
            f"not {confidence.shape} and {outcome.shape}"
        )
    if confidence.size == 0:
        raise ValueError("confidence and correct are empty: there is nothing to measure")
    outside = ~((confidence >= 0) & (confidence <= 1))  # true for NaN as well
    if outside.any():
        row = int(np.argmax(outside))
        raise ValueError(f"confidence[{row}] is {confidence[row]}: it must lie in [0, 1]")
    unclear = (outcome != 0) & (outcome != 1)
    if unclear.any():
        row = int(np.argmax(unclear))
        raise ValueError(f"correct[{row}] is {outcome[row]}: it must be true or false")
    return confidence, outcome.astype(bool)


def checked_bins(bins: int) -> int:
    """Return the number of bins.

    Raises:
        ValueError: it is not a positive whole number.
    """
    if bins != int(bins) or bins < 1:
        raise ValueError(f"bins is {bins}: it must be a positive whole number")
    return int(bins)


def padded(logits: LogitRows) -> NDArray:
    """Return option logits as float64 [n, K], short rows filled with -inf.

    Args:
        logits: n rows of finite option logits; rows may differ in their number of options.

    Raises:
        ValueError: there are no rows, a row is empty, or a logit is NaN or infinite.
    """
    if isinstance(logits, np.ndarray) and logits.ndim == 2:
        table = logits.astype(np.float64)
        bad = ~np.isfinite(table).all(axis=1)
        if table.size == 0:
            raise ValueError("logits are empty: there is nothing to measure")
    else:
        rows = [np.atleast_1d(np.asarray(row, dtype=np.float64)) for row in logits]
        widths = np.array([row.size for row in rows])
        if len(rows) == 0 or widths.min() == 0 or any(row.ndim != 1 for row in rows):
            raise ValueError("logits need at least one row, and each row at least one option")
        flat = np.concatenate(rows)
        table = np.full((len(rows), widths.max()), -np.inf)
        table[np.arange(widths.max()) < widths[:, None]] = flat
        bad = np.logical_or.reduceat(~np.isfinite(flat), np.cumsum(widths) - widths)
    if bad.any():
        raise ValueError(f"logits[{int(np.argmax(bad))}] holds NaN or an infinite value")
    return table


def checked_labels(table: NDArray, label: ArrayLike) -> NDArray:
    """Return the labels as indices [n] of the right options of `padded` logits.

    Raises:
        ValueError: there is not one label per row, or one points outside its row's options.
    """
    labels = np.asarray(label)
    if labels.shape != (len(table),):
        raise ValueError(f"{len(table)} rows of logits need as many labels, not {labels.shape}")
    indices = labels.astype(np.int64)
    count = np.isfinite(table).sum(axis=1)
    wrong = (indices != labels) | (indices < 0) | (indices >= count)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"label[{row}] is {labels[row]}, but the row has {count[row]} options")
    return indices
