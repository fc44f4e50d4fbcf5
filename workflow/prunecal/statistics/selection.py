"""The interval of a number that was selected because it is the smallest or the largest.

The lowest of many estimates is low by luck as well as by merit, so an interval around it that
forgets the selection misses the truth too often.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prunecal.statistics.bootstrap import standard_error


def simultaneous_interval(values: ArrayLike, draws: NDArray, level: float = 0.95) -> NDArray:
    """Return intervals that hold all true values at once with a chance of `level`, float64 [2, m].

    Value -+ q s, s the standard deviation of the draws and q the quantile at `level` of the largest
    |draw - mean draw| / s of all members. Whichever member is then selected, for whatever reason,
    its interval covers: the projection interval of Andrews, Kitagawa and McCloskey (Inference on
    Winners, Quarterly Journal of Economics 139, 2024), by resampling.

    Args:
        values: the estimates among which one is selected, float64 [m].
        draws: the same on each resample, float64 [m, R].
        level: the chance that every interval covers.
    """
    values, error = np.asarray(values, dtype=np.float64), standard_error(draws)
    scale = np.where(error > 0, error, 1.0)
    noise = np.abs(draws - np.nanmean(draws, axis=1, keepdims=True)) / scale[:, None]
    q = np.quantile(np.nan_to_num(noise).max(axis=0), level)
    return np.stack([values - q * error, values + q * error])
