"""Proper scores, which reward accuracy as well as calibration."""

import numpy as np
from numpy.typing import ArrayLike

from prunecal.calibration._checks import LogitRows, checked, checked_labels, padded
from prunecal.calibration.logits import brier_rows, surprise_rows
from prunecal.calibration.sample import plain


def brier_score(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return the mean of (confidence - correct)²; 0 is best.

    Brier (1950), for the event "the prediction is right".

    Args:
        confidence: probability given to the prediction, [n] in [0, 1].
        correct: whether the prediction is right, [n].

    Raises:
        ValueError: see `sample.plain`.
    """
    return float(plain(confidence, correct).means["brier"][0])


def brier_multiclass(logits: LogitRows, label: ArrayLike) -> float:
    """Return the mean over rows of the sum over options of (probability - is the label)².

    Brier's (1950) original score, in [0, 2]; with two options it is twice `brier_score`.

    Args:
        logits: n rows of option logits, which may differ in their number of options.
        label: index of the right option, int [n].

    Raises:
        ValueError: see `_checks.padded` and `_checks.checked_labels`.
    """
    table = padded(logits)
    return float(np.mean(brier_rows(table, checked_labels(table, label))))


def negative_log_likelihood(prediction: LogitRows, outcome: ArrayLike) -> float:
    """Return the mean of -log of the probability of what is true, in nats; 0 is best.

    Args:
        prediction: n rows of option logits, which may differ in their number of options; or, as
            one number per row, the confidence that the prediction is right, [n] in [0, 1].
        outcome: for logits the index of the right option, int [n]; for confidences whether the
            prediction is right, bool [n].

    Returns:
        The score; infinite where a confidence of exactly 1 is wrong or of exactly 0 is right.

    Raises:
        ValueError: see `_checks.padded` and `_checks.checked_labels`, or `_checks.checked`.
    """
    if all(np.ndim(row) == 0 for row in prediction):
        confidence, correct = checked(np.asarray(prediction), outcome)
        likelihood = np.where(correct, confidence, 1 - confidence)
        undefined = np.full_like(likelihood, -np.inf)
        return float(np.mean(-np.log(likelihood, out=undefined, where=likelihood > 0)))
    table = padded(prediction)
    return float(np.mean(surprise_rows(table, checked_labels(table, outcome))))
