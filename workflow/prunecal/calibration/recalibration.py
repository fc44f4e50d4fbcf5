"""One parameter that rescales all logits: would it have given the same calibration?"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from prunecal.calibration._checks import LogitRows, checked_labels, padded
from prunecal.calibration.logits import surprise_rows

LIMITS = (0.01, 100.0)


def temperature(logits: LogitRows, label: ArrayLike) -> float:
    """Return the T > 0 for which softmax(logits / T) has the smallest negative log-likelihood.

    Temperature scaling (Guo et al., arXiv 1706.04599, section 4.2) by bounded minimisation over
    log T between 0.01 and 100; T > 1 means that the logits were over-confident. Where every
    prediction is right (or the logits say nothing) the likelihood has no inner optimum and T ends
    near a limit.

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

    def loss(log_temperature: float) -> float:
        return float(weight @ surprise_rows(table / np.exp(log_temperature), label))

    found = minimize_scalar(
        loss, bounds=tuple(np.log(LIMITS)), method="bounded", options={"xatol": 1e-7}
    )
    return float(np.exp(found.x))
