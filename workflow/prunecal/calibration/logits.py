"""Probabilities and scores of rows of option logits."""

import numpy as np
from numpy.typing import NDArray


def log_probabilities(table: NDArray, axis: int = -1) -> NDArray:
    """Return the log-softmax over an axis; -inf marks options that a row lacks."""
    shifted = table - table.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def surprise_rows(table: NDArray, label: NDArray) -> NDArray:
    """Return -log p(label) per row of `padded` logits, float64 [n]."""
    return -np.take_along_axis(log_probabilities(table), label[:, None], axis=1)[:, 0]


def brier_rows(table: NDArray, label: NDArray) -> NDArray:
    """Return the multiclass Brier score per row of `padded` logits, float64 [n]."""
    probability = np.exp(log_probabilities(table))
    right = np.take_along_axis(probability, label[:, None], axis=1)[:, 0]
    return (probability**2).sum(axis=1) - 2 * right + 1
