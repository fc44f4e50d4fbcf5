"""Intervals and tests by resampling images: is a difference larger than its noise?

An image's questions are alike, so rows are no independent sample; images are. Each resample draws
as many images as there are, with replacement, and takes all rows of an image as often as it was
drawn (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). All cells
share the same draws, so that differences between cells are paired.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtrit

from prunecal.calibration._checks import checked, checked_bins


class Bootstrap(NamedTuple):
    """What a clustered bootstrap found about one metric of one cell."""

    value: float  # on the rows as they are
    draws: NDArray  # float64 [R], on each resample of images; NaN where undefined

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the percentile interval, see `interval`."""
        low, high = interval(self.draws, level)
        return float(low), float(high)


def clustered_bootstrap(
    image_id: Sequence[str] | ArrayLike,
    cells: Mapping[str, tuple[ArrayLike, ArrayLike]],
    metrics: Sequence[str],
    *,
    resamples: int = 2000,
    seed: int = 0,
    bins: int = 15,
) -> dict[str, dict[str, Bootstrap]]:
    """Resample images, the same draws for every cell, and measure every cell on every resample.

    Args:
        image_id: image of each row, [n]; rows of one image travel together.
        cells: per name the (confidence, correct) of the same n rows under one strategy and budget.
        metrics: names among accuracy, mean_confidence, overconfidence, brier, ece, mce, ace, smece,
            auroc, aurc, e_aurc, augrc, risk_at_80_coverage, coverage_at_5_risk and the further
            ones of `calibration.metrics` that need no more.
        resamples: number of resamples R.
        seed: of the generator that draws the images.
        bins: bins of ECE, MCE and adaptive ECE.

    Returns:
        Per cell and metric its value and draws; draws of two cells may be subtracted.

    Raises:
        ValueError: a cell has another number of rows than `image_id`, a metric is unknown, or a
            cell's confidences or outcomes are malformed.
    """
    # imported here: they take most of a second, and who needs an interval alone needs none of them
    from prunecal.calibration.metrics import METRICS, PRIMARY, compute
    from prunecal.calibration.sample import Sample

    images, cluster = np.unique(np.asarray(image_id), return_inverse=True)
    weights = np.hstack([np.ones((len(images), 1)), image_weights(len(images), resamples, seed)])
    results: dict[str, dict[str, Bootstrap]] = {}
    for name, pair in cells.items():
        confidence, correct = checked(*pair)
        if len(confidence) != len(cluster):
            raise ValueError(f"cell {name!r} has {len(confidence)} rows, image_id {len(cluster)}")
        sample = Sample(confidence, correct, cluster, weights, checked_bins(bins))
        results[name] = {}
        for metric in metrics:
            values = compute(metric, sample)
            if values is None:
                known = (key for key in METRICS | PRIMARY if compute(key, sample) is not None)
                raise ValueError(
                    f"metric {metric!r} is unknown or needs more than confidence and correctness; "
                    f"known are {', '.join([*sample.means, *known])}"
                )
            results[name][metric] = Bootstrap(float(values[0]), values[1:])
    return results


def image_weights(images: int, resamples: int, seed: int) -> NDArray:
    """Return how often each image is drawn, float64 [images, resamples] of whole numbers.

    The first r resamples are the same for every number of resamples >= r.

    Raises:
        ValueError: there are no images or no resamples.
    """
    if images < 1 or resamples < 1:
        raise ValueError(f"{images} images and {resamples} resamples: at least one of each needed")
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(images, np.full(images, 1 / images), size=resamples)
    return np.ascontiguousarray(counts.T, dtype=np.float64)


def image_folds(images: int, seed: int, split: int = 0) -> NDArray:
    """Return a random half of the images as fold 1, the others as fold 0, int [images]."""
    order = np.random.default_rng([seed, 1 + split]).permutation(images)
    return (order < images // 2).astype(np.intp)


def image_signs(images: int, replicates: int, seed: int) -> NDArray:
    """Return 1 or -1 at random for each image and replicate, float64 [images, replicates]."""
    drawn = np.random.default_rng([seed, 0]).integers(0, 2, (images, replicates))
    return 2.0 * drawn - 1.0


def interval(draws: NDArray, level: float = 0.95) -> NDArray:
    """Return the percentile interval over the last axis, float64 [2, …]; NaN draws are left out.

    Where no draw is defined, both ends are NaN.
    """
    tails = (0.5 - level / 2, 0.5 + level / 2)
    if np.isfinite(draws).all():
        return np.quantile(draws, tails, axis=-1)
    flat = draws.reshape(-1, draws.shape[-1])
    ends = np.full((len(flat), 2), np.nan)
    for end, row in zip(ends, flat, strict=True):
        defined = row[np.isfinite(row)]
        if len(defined):
            end[:] = np.quantile(defined, tails)
    return ends.T.reshape(2, *draws.shape[:-1])


def normal_interval(value: ArrayLike, draws: NDArray, level: float = 0.95) -> NDArray:
    """Return value -+ z times the draws' standard deviation over the last axis, float64 [2, …].

    NaN draws are left out; NaN where fewer than two are defined.
    """
    error = standard_error(draws)
    z = ndtri(0.5 + level / 2)
    return np.stack([value - z * error, value + z * error])


def widened(level: float, images: int) -> float:
    """Return the level whose normal quantile makes up for few images.

    Resamples of n images vary by (n - 1) / n too little, and their standard deviation is itself an
    estimate: the quantile of Student's t with n - 1 degrees of freedom times sqrt(n / (n - 1)) is
    exact for means of normal observations. An interval of resamples, normal or percentile, covers
    with a chance of `level` at the level returned here (Hesterberg, The American Statistician 69,
    2015, section 5: expanded percentile interval).

    Args:
        level: of the interval.
        images: number of images that were resampled, at least 2.
    """
    t = stdtrit(images - 1, 0.5 + level / 2) * np.sqrt(images / (images - 1))
    return float(2 * ndtr(t) - 1)


def standard_error(draws: NDArray) -> NDArray:
    """Return the standard deviation over the last axis without NaN draws, float64 […]."""
    defined = np.isfinite(draws)
    count = defined.sum(axis=-1)
    filled = np.where(defined, draws, 0.0)
    mean = filled.sum(axis=-1) / np.maximum(count, 1)
    square = np.where(defined, (filled - mean[..., None]) ** 2, 0.0).sum(axis=-1)
    return np.where(count > 1, np.sqrt(square / np.maximum(count - 1, 1)), np.nan)
