"""Maps from confidence to accuracy, fitted on one half of the images and applied to the other.

Isotonic regression (Zadrozny and Elkan, KDD 2002, by pooling adjacent violators) and histogram
binning in bins of equally many rows (Zadrozny and Elkan, ICML 2001; Gupta and Ramdas, arXiv
2105.04656): what a deployment could use in place of a temperature. They leave the prediction as it
is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

Map = Callable[[NDArray], NDArray]  # confidences to accuracies, float64 [n] to [n]


def isotonic(confidence: NDArray, correct: NDArray) -> Map:
    """Return the isotonic regression of correctness on confidence.

    Between two confidences of the fit it is linear, beyond the last one constant.

    Args:
        confidence: float64 [n], at least one row.
        correct: bool [n], or float64 where outcomes are not 0 and 1.
    """
    knots, accuracy = pooled(confidence, correct)
    return lambda new: np.interp(new, knots, accuracy)


def pooled(confidence: NDArray, correct: NDArray) -> tuple[NDArray, NDArray]:
    """Return the distinct confidences, ascending, and the isotonic accuracy at each.

    Equal confidences are pooled first, so the order of the rows does not matter.
    """
    knots, group = np.unique(confidence, return_inverse=True)
    count = np.bincount(group)
    share = np.bincount(group, correct) / count
    return knots, isotonic_regression(share, weights=count).x


def histogram(confidence: NDArray, correct: NDArray, bins: int) -> Map:
    """Return the accuracy per bin, the bins cut so that each holds equally many rows of the fit.

    Args:
        confidence: float64 [n], at least one row.
        correct: bool [n].
        bins: number of bins; equal confidences share one, so there may be fewer.
    """
    place = equal_mass_index(confidence, bins)
    _, place = np.unique(place, return_inverse=True)  # ties may leave bins empty
    accuracy = np.bincount(place, correct) / np.bincount(place)
    highest = np.full(len(accuracy), -np.inf)
    np.maximum.at(highest, place, confidence)
    return lambda new: accuracy[np.searchsorted(highest[:-1], new, side="left")]


def equal_mass_index(confidence: NDArray, bins: int) -> NDArray:
    """Return each row's bin among `bins` of equally many rows, int [n].

    Equal confidences share the bin in which their middle lies.
    """
    _, group, count = np.unique(confidence, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - count / 2
    return np.minimum((middle * bins / len(confidence)).astype(np.intp), bins - 1)[group]


def cross_fitted(
    confidence: NDArray, correct: NDArray, cluster: NDArray, folds: NDArray, bins: int
) -> dict[str, NDArray]:
    """Return recalibrated confidences by the name of the map, float64 [splits, n] each.

    Args:
        confidence: float64 [n].
        correct: bool [n].
        cluster: int [n], index of the row's cluster (image) in `folds`.
        folds: int [splits, clusters], 0 or 1: each half gets the map fitted on the other. NaN
            where the other half has no rows.
        bins: of histogram binning.
    """
    fits: dict[str, Callable[[NDArray, NDArray], Map]] = {
        "isotonic": isotonic,
        "histogram": partial(histogram, bins=bins),
    }
    result = {name: np.full((len(folds), len(confidence)), np.nan) for name in fits}
    for split, fold in enumerate(folds):
        for half in (0, 1):
            inside = fold[cluster] == half
            if inside.all():
                continue
            for name, fit in fits.items():
                fitted = fit(confidence[~inside], correct[~inside])
                result[name][split, inside] = fitted(confidence[inside])
    return result
