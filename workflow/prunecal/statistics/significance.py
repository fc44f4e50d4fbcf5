"""P-values, families of tests, and the smallest difference that could be seen."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtr, stdtrit

from prunecal.statistics.bootstrap import standard_error

FEWEST_IMAGES = 20  # of half as many, a test at 5 % has nearly twice the false alarms
FLAT = 1e-12  # differences below it are rounding
POWER = 0.8  # of tests whose smallest difference is told


def step_down(delta: ArrayLike, draws: ArrayLike, images: int | None = None) -> NDArray:
    """Return p-values of no difference, adjusted for one family of tests, float64 [m].

    The step-down max-T procedure of Romano and Wolf (Econometrica 73, 2005; p-values as in
    Statistics & Probability Letters 113, 2016) on the resamples that all members share. Member j
    has the statistic |delta_j| / s_j, s_j the standard deviation of its draws. Its p-value is
    (1 + k) / (R + 1), k the number of resamples on which the largest |draw - mean draw| / s among
    the members with no larger statistic reaches it, made monotone; so it is never 0.

    Args:
        delta: the differences as measured, float64 [m].
        draws: the same on each resample, float64 [m, R]. An undefined (NaN) draw of a member says
            nothing about the others.
        images: number of images that were resampled. Statistics of few of them exceed what their
            resamples show: each is brought to the normal quantile of its probability by Student's t
            with images - 1 degrees of freedom (as `bootstrap.widened` does for intervals). None
            takes them as they are.

    Returns:
        Adjusted p-values; NaN, and no member of the family, where `delta` or at least half of the
        draws are undefined. Where no draw differs from another, 1 if `delta` is 0, else NaN: such
        draws do not tell how large chance differences are.

    Raises:
        ValueError: the shapes do not fit.
    """
    return p_values(delta, draws, images)[1]


def unadjusted_p(delta: ArrayLike, draws: ArrayLike, images: int | None = None) -> NDArray:
    """Return the p-value of each difference alone: `step_down` of families of one, float64 [m]."""
    return p_values(delta, draws, images)[0]


def p_values(delta: ArrayLike, draws: ArrayLike, images: int | None) -> tuple[NDArray, NDArray]:
    """Return the p-values of `unadjusted_p` and of `step_down`, float64 [m] each."""
    statistic, noise = _studentised(delta, draws)
    return _alone_and_adjusted(_normal_scores(statistic, images), noise)


def excess_p(value: NDArray, null: NDArray) -> tuple[NDArray, NDArray]:
    """Return p-values of values that are no larger than chance makes them, float64 [m] each.

    The first are of each value alone, (1 + k) / (R + 1) with k the number of replicates that reach
    it; the second are adjusted for the family as in `step_down`, the members in units of the
    standard deviation of their replicates.

    Args:
        value: as measured, float64 [m].
        null: what chance makes of them, float64 [m, R], on random numbers that all members share.
    """
    mean, error = null.mean(axis=1), null.std(axis=1)
    scale = np.where(error > FLAT, error, 1.0)
    noise = (null - mean[:, None]) / scale[:, None]
    return _alone_and_adjusted((value - mean) / scale, noise)


def _normal_scores(statistic: NDArray, images: int | None) -> NDArray:
    """Return statistics of resampled images in normal quantiles, float64 [m]: see `step_down`."""
    if images is None:
        return statistic
    tail = stdtr(images - 1, -statistic * np.sqrt((images - 1) / images))
    return np.minimum(-ndtri(tail), statistic)  # where the tail is below every float64


def _alone_and_adjusted(statistic: NDArray, noise: NDArray) -> tuple[NDArray, NDArray]:
    """Return p-values of statistics [m] with noise [m, R], alone and by the step-down."""
    alone = np.where(np.isfinite(statistic), _share(noise, statistic), np.nan)
    members = np.flatnonzero(np.isfinite(statistic))
    ranked = members[np.argsort(-statistic[members], kind="stable")]
    adjusted = np.full(statistic.shape, np.nan)
    if len(ranked):
        largest = np.maximum.accumulate(noise[ranked[::-1]], axis=0)[::-1]
        adjusted[ranked] = np.maximum.accumulate(_share(largest, statistic[ranked]))
    return alone, adjusted


def _share(noise: NDArray, statistic: NDArray) -> NDArray:
    """Return how often noise [m, R] reaches a statistic [m], which itself counts as one draw."""
    reached = (noise >= statistic[:, None]).sum(axis=1)
    return (1 + reached) / (noise.shape[1] + 1)


def _studentised(delta: ArrayLike, draws: ArrayLike) -> tuple[NDArray, NDArray]:
    """Return |delta| and |draws - their mean| in units of the draws' standard deviation."""
    delta = np.asarray(delta, dtype=np.float64)
    draws = np.asarray(draws, dtype=np.float64)
    if draws.ndim != 2 or delta.shape != draws.shape[:1]:
        raise ValueError(f"{delta.shape} differences do not fit draws of shape {draws.shape}")
    finite = np.isfinite(draws)
    defined = np.isfinite(delta) & (finite.mean(axis=1) > 0.5)
    filled = np.where(finite, draws, 0.0)
    count = np.maximum(finite.sum(axis=1), 1)
    mean = filled.sum(axis=1) / count
    deviation = np.where(finite, draws - mean[:, None], 0.0)
    error = standard_error(draws)
    varies = error > FLAT
    scale = np.where(varies, error, 1.0)
    unchanged = ~varies & (np.abs(delta) <= FLAT)
    statistic = np.where(unchanged, 0.0, np.abs(delta) / scale)
    statistic[~(defined & (varies | unchanged))] = np.nan
    return statistic, np.where(varies[:, None], np.abs(deviation) / scale[:, None], 0.0)


def detected(error: NDArray, images: ArrayLike, level: float) -> NDArray:
    """Return the distance from a bound that a one-sided test at a level shows with 80 % power.

    (t of 1 - level + t of 0.8) sqrt(n / (n - 1)) standard errors, t the quantiles of Student's t
    with n - 1 degrees of freedom, n the number of images that were resampled.

    Args:
        error: standard deviation of the draws, float64 [...].
        images: numbers of images, which broadcast to it.
        level: of the test.
    """
    images = np.asarray(images)
    quantiles = stdtrit(images - 1, 1 - level) + stdtrit(images - 1, POWER)
    return quantiles * np.sqrt(images / np.maximum(images - 1, 1)) * error


def minimum_detectable(difference: NDArray, images: ArrayLike) -> NDArray:
    """Return the difference that a study of this size finds with 80 % power at the 5 % level.

    By a two-sided test (see `detected`) on draws over the last axis; NaN draws are left out, NaN
    where fewer than two are defined or fewer than two `images` were resampled.
    """
    return detected(standard_error(difference), images, 0.025)


def smallest_margin(difference: NDArray, images: ArrayLike) -> NDArray:
    """Return the smallest margin within which equal cells can be shown to lie with 80 % power.

    By two one-sided tests at 5 % (see `detected`) on draws over the last axis; NaN where fewer than
    two draws are defined or fewer than two `images` were resampled.
    """
    return detected(standard_error(difference), images, 0.05)
