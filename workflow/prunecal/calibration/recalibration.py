"""One parameter that rescales all logits: would it have given the same calibration?"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from prunecal.calibration._checks import LogitRows, checked_labels, padded
from prunecal.calibration.logits import log_probabilities, surprise_rows

LIMITS = (0.01, 100.0)
LOWEST, HIGHEST = np.log(LIMITS)
GRID = np.linspace(LOWEST, HIGHEST, 61)  # of log T


def temperature(logits: LogitRows, label: ArrayLike) -> float:
    """Return the T > 0 for which softmax(logits / T) has the smallest negative log-likelihood.

    Temperature scaling (Guo et al., arXiv 1706.04599, section 4.2) by bounded minimisation over
    log T between 0.01 and 100; T > 1 means that the logits were over-confident. Where the
    likelihood still grows at an end, as when every prediction is right, T is that end; where it is
    flat, as when all options have one logit, no T is better than another and the result is NaN.

    Args:
        logits: n rows of option logits, which may differ in their number of options.
        label: index of the right option, int [n].

    Raises:
        ValueError: see `_checks.padded` and `_checks.checked_labels`.
    """
    table = padded(logits)
    return weighted_temperature(table, checked_labels(table, label), np.ones(len(table)))


def weighted_temperature(table: NDArray, label: NDArray, weight: NDArray) -> float:
    """Return the temperature of `padded` logits whose rows count `weight` times, float64 [n]."""
    coldest, *_, hottest = slope = slopes(table, label) @ weight
    if not slope.any():
        return float("nan")
    if coldest >= 0 or hottest <= 0:
        return LIMITS[0] if coldest >= 0 else LIMITS[1]

    def loss(log_temperature: float) -> float:
        return float(weight @ surprise_rows(table / np.exp(log_temperature), label))

    minimum = minimize_scalar(
        loss, bounds=tuple(np.log(LIMITS)), method="bounded", options={"xatol": 1e-7}
    )
    return float(np.exp(minimum.x))


def slopes(table: NDArray, label: NDArray) -> NDArray:
    """Return d(-log p(label)) / d(log T) of each row at each T of the grid, float64 [grid, n].

    Args:
        table: `padded` logits, float64 [n, K].
        label: index of the right option, int [n].
    """
    own = np.take_along_axis(table, label[:, None], axis=1)[:, 0]
    table = np.ascontiguousarray(table.T)  # sums over options are then over long rows
    finite = np.where(np.isfinite(table), table, 0.0)  # missing options have no mass
    result = np.empty((len(GRID), len(own)))
    for row, log_temperature in zip(result, GRID, strict=True):
        scale = np.exp(-log_temperature)
        probability = np.exp(log_probabilities(table * scale, axis=0))
        row[:] = (own - (probability * finite).sum(axis=0)) * scale
    return result
