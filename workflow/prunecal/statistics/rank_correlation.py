"""Rank correlations over cells, and what noise takes from them."""

import numpy as np
from numpy.typing import NDArray

FLAT = 1e-9  # sums of squares of ranks below it are rounding


def reliability(table: NDArray) -> NDArray:
    """Return the share of a metric's variance over cells that is not noise, float64 [1 + R].

    Noise is the mean variance of the cells' draws about their common mean; a draw holds the noise
    of the sample and its own.

    Args:
        table: the value, then the draws of each cell, float64 [cells, 1 + R].
    """
    centred = table - table.mean(axis=0)
    noise = np.nanvar(centred[:, 1:], axis=1, ddof=1).mean()
    times = np.where(np.arange(table.shape[1]) == 0, 1.0, 2.0)
    return 1 - times * noise / centred.var(axis=0, ddof=1)


def disattenuated(followed: NDArray, noisy: NDArray) -> NDArray:
    """Return the absolute rank correlation freed of the noise of `noisy`, float64 [1 + R].

    A draw whose reliability is nearly 0 is bounded, so that it cannot decide by itself.
    """
    share = np.clip(reliability(noisy), 0.05, 1.0)
    return np.minimum(np.abs(rank_correlation(followed, noisy)) / np.sqrt(share), 1.5)


def rank_correlation(x: NDArray, y: NDArray, given: NDArray | None = None) -> NDArray:
    """Return Spearman's rank correlation of the columns of two [cells, R] tables, float64 [R].

    Ties share their mean rank; NaN where one of the two does not vary.

    Args:
        x: one metric.
        y: the other.
        given: a group of each cell, [cells]; ranks are then taken less the mean rank of their
            group, which makes it a partial rank correlation given the group.
    """
    # imported here: it takes most of a second, and most figures rank nothing
    from scipy.stats import rankdata

    x, y = (rankdata(table, axis=0) for table in (x, y))
    groups = np.zeros(len(x), dtype=int) if given is None else given
    for group in np.unique(groups):
        members = groups == group
        for ranks in (x, y):
            ranks[members] -= ranks[members].mean(axis=0)
    scale = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    undefined = np.full(scale.shape, np.nan)
    return np.divide((x * y).sum(axis=0), scale, out=undefined, where=scale > FLAT)
