"""P-values, families of tests, and the smallest difference that could be seen."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

POWER, TAIL = 0.8416212335729143, 1.959963984540054  # normal quantiles of 80 % and 97.5 %


def two_sided_p(difference: NDArray) -> NDArray:
    """Return the p-value of no difference from draws of it over the last axis, float64 […].

    Twice the smaller share of draws at or past zero, at most 1: the level at which a percentile
    interval just touches zero (Efron and Tibshirani 1993, section 15.4). 0 means that none of the
    R draws reached zero, so p is below about 2 / R. NaN draws are left out; NaN where none is
    defined.
    """
    defined = np.isfinite(difference).sum(axis=-1)
    below = (difference <= 0).sum(axis=-1)
    above = (difference >= 0).sum(axis=-1)
    p = np.minimum(2 * np.minimum(below, above) / np.maximum(defined, 1), 1.0)
    return np.where(defined > 0, p, np.nan)


def holm(p: ArrayLike) -> NDArray:
    """Return p-values adjusted for one family by Holm's step-down method, float64 [m].

    Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979. NaN stays NaN and does not
    count as a member of the family.
    """
    p = np.asarray(p, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    order = np.argsort(p)[: int(np.isfinite(p).sum())]  # NaN sorts last
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def minimum_detectable(difference: NDArray) -> NDArray:
    """Return the difference that a study of this size finds with 80 % power at the 5 % level.

    (z of 0.975 + z of 0.8) times the standard error, which is the draws' standard deviation over
    the last axis; NaN draws are left out, NaN where fewer than two are defined.
    """
    defined = np.isfinite(difference)
    count = defined.sum(axis=-1)
    filled = np.where(defined, difference, 0.0)
    mean = filled.sum(axis=-1) / np.maximum(count, 1)
    square = np.where(defined, (filled - mean[..., None]) ** 2, 0.0).sum(axis=-1)
    error = np.sqrt(square / np.maximum(count - 1, 1))
    return np.where(count > 1, (TAIL + POWER) * error, np.nan)
