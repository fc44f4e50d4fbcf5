"""Slope and intercept of calibration: a logistic model of correctness given confidence.

logit P(right) = intercept + slope * logit(confidence); a calibrated model has 0 and 1, an
overconfident one a slope below 1 (Cox, Two Further Applications of a Model for Binary Regression,
Biometrika 45, 1958).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

CLIP = 2.0**-53  # nearest to 0 and 1 that a confidence counts: its logit is finite
STEPS, TOLERANCE = 50, 1e-10  # of Newton's method, in units of the parameters
STEEPEST = 1e3  # a slope beyond it means that confidence separates right from wrong


def cox_calibration(
    confidence: NDArray, correct: NDArray, cluster: NDArray, weights: NDArray
) -> tuple[NDArray, NDArray]:
    """Return intercept and slope under each weighting, float64 [R] each.

    The fit to all rows is exact. Under another weighting it is one Newton step from there: its
    standard deviation over resamples of images is the error that knows of images (the sandwich of
    Liang and Zeger, Biometrika 73, 1986), at the cost of five sums.

    Arguments are as the attributes of `sample.Sample`.

    Returns:
        NaN where the parameters are not determined: all answers are right, or wrong, or have one
        confidence, or confidence separates the right ones from the wrong.
    """
    bounded = np.clip(confidence, CLIP, 1 - CLIP)
    x = np.log(bounded) - np.log1p(-bounded)
    fit = _fit(x, correct)
    if fit is None:
        undefined = np.full(weights.shape[1], np.nan)
        return undefined, undefined
    intercept, slope = fit
    right = expit(intercept + slope * x)
    residual, spread = correct - right, right * (1 - right)
    columns = residual, residual * x, spread, spread * x, spread * x**2
    sums = np.stack([np.bincount(cluster, column, len(weights)) for column in columns]) @ weights
    step, determined = _newton(*sums)
    alpha, beta = np.where(determined, fit[:, None] + step, np.nan)
    return alpha, beta


def _fit(x: NDArray, correct: NDArray) -> NDArray | None:
    """Return the maximum of the likelihood, float64 [2]; None where there is none."""
    if correct.all() or not correct.any():
        return None
    parameters = np.array([0.0, 1.0])
    for _ in range(STEPS):
        right = expit(parameters[0] + parameters[1] * x)
        residual, spread = correct - right, right * (1 - right)
        sums = residual, residual * x, spread, spread * x, spread * x**2
        step, determined = _newton(*(column.sum(keepdims=True) for column in sums))
        if not determined[0]:
            return None
        largest = np.abs(step[:, 0]).max()
        parameters = parameters + step[:, 0] / max(1.0, largest)  # no further than 1 at a time
        if abs(parameters[1]) > STEEPEST:
            return None
        if largest < TOLERANCE:
            return parameters
    return None


def _newton(g0: NDArray, g1: NDArray, h00: NDArray, h01: NDArray, h11: NDArray) -> tuple:
    """Return Newton's steps, float64 [2, R], from gradients and curvatures, and which exist."""
    determinant = h00 * h11 - h01**2
    determined = determinant > 1e-9 * h00 * h11
    scale = np.where(determined, determinant, 1.0)
    return np.stack([h11 * g0 - h01 * g1, h00 * g1 - h01 * g0]) / scale, determined
