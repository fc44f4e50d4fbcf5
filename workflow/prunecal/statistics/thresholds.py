"""Thresholds of confidence above which an answer is accepted, and what they let through.

A threshold t accepts the answers whose confidence is at least t. Its coverage is the share of
answers that it accepts, its risk the share of wrong ones among these. Images are the unit of
observation: the answers about one image are alike.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc

RISK = 0.05  # of the accepted answers, the share that may be wrong
DELTA = 0.1  # chance with which a tested threshold may exceed it
STEPS = 50  # thresholds that are tried, at equal steps of coverage
FIRST_IMAGES, FIRST_SHARE = 100, 0.8  # images that the first threshold tried must reach


class Answers(NamedTuple):
    """The answers of one cell.

    Attributes:
        confidence: float64 [n].
        correct: bool [n].
        image: int [n], index of each answer's image.
        images: number of images.
    """

    confidence: NDArray
    correct: NDArray
    image: NDArray
    images: int


class Accepted(NamedTuple):
    """Answers per threshold and image, float64 [thresholds, images]."""

    answered: NDArray
    wrong: NDArray


def accepted(answers: Answers, thresholds: ArrayLike) -> Accepted:
    """Count per image the answers, and the wrong ones, with a confidence of at least a threshold.

    Args:
        answers: of a cell.
        thresholds: float64 [thresholds], falling.
    """
    limits = np.asarray(thresholds, dtype=np.float64)
    first = np.searchsorted(-limits, -answers.confidence)  # the strictest that accepts each answer
    place = first * answers.images + answers.image
    size = (len(limits) + 1) * answers.images
    tables = []
    for weight in (None, ~answers.correct):
        counts = np.bincount(place, weight, size).reshape(len(limits) + 1, answers.images)
        tables.append(counts[:-1].cumsum(axis=0).astype(np.float64))
    return Accepted(*tables)


def largest_coverage(answers: Answers, risk: float = RISK) -> float:
    """Return the threshold with the largest coverage among those with at most this risk here.

    It is chosen on the answers themselves, so that the risk on other images is above `risk` about
    as often as not; see `guaranteed_threshold`.

    Returns:
        A confidence; NaN where even the most confident answers are wrong more often.
    """
    values, place = np.unique(-answers.confidence, return_inverse=True)
    answered = np.bincount(place, minlength=len(values)).cumsum()
    wrong = np.bincount(place, ~answers.correct, len(values)).cumsum()
    fits = np.flatnonzero(wrong <= risk * answered)
    return float(-values[fits[-1]]) if len(fits) else float("nan")


def guaranteed_threshold(answers: Answers, risk: float = RISK, delta: float = DELTA) -> float:
    """Return a threshold whose risk on other images is above `risk` with a chance of at most delta.

    Learn then Test (Angelopoulos et al., arXiv 2110.01052, section 3) with fixed-sequence testing:
    thresholds at equal steps of coverage are tested from the strictest on until the hypothesis that
    the risk is above `risk` is not rejected at `delta` (see `risk_p_values`); the last one rejected
    is returned. The first is the strictest that accepts answers about enough images (100, or 80 %
    of fewer). Which thresholds are tried depends on the confidences alone, not on which answers are
    right.

    Returns:
        A confidence; NaN where no threshold passes.
    """
    ranked = np.sort(answers.confidence)[::-1]
    ends = np.ceil(np.arange(1, STEPS + 1) / STEPS * len(ranked)).astype(int) - 1
    limits = np.unique(ranked[ends])[::-1]
    table = accepted(answers, limits)
    reached = (table.answered > 0).sum(axis=1)
    start = int(np.argmax(reached >= min(FIRST_IMAGES, FIRST_SHARE * answers.images)))
    rejected = risk_p_values(table, risk)[start:] <= delta
    passed = len(rejected) if rejected.all() else int(np.argmin(rejected))
    return float(limits[start + passed - 1]) if passed else float("nan")


def risk_p_values(table: Accepted, risk: float) -> NDArray:
    """Return the p-value of "the risk is above `risk`" for each threshold, float64 [thresholds].

    The binomial tail of an effective number of answers (Korn and Graubard, Survey Methodology 24,
    1998): the answers accepted, divided by a design effect. That is the largest of three: 1; the
    variance over images by that of independent answers; and 1 + (m - 1) ICC with m the mean number
    of answers that accompany an accepted one and ICC the intraclass correlation of all answers'
    errors. Without an error there is no variance over images, and an image counts once.

    Args:
        table: counts per image; the last threshold accepts the most.
        risk: the hypothesis, in (0, 1).
    """
    answered, wrong = table.answered.sum(axis=1), table.wrong.sum(axis=1)
    images = np.maximum((table.answered > 0).sum(axis=1), 1)
    count = np.maximum(answered, 1)
    share = wrong / count
    size = (table.answered**2).sum(axis=1) / count
    independent = share * (1 - share) / count
    spread = ((table.wrong - share[:, None] * table.answered) ** 2).sum(axis=1) / count**2
    spread *= images / np.maximum(images - 1, 1)
    mixed = independent > 0
    effect = np.where(mixed, spread / np.where(mixed, independent, 1.0), count / images)
    alike = (effect[-1] - 1) / (size[-1] - 1) if mixed[-1] and size[-1] > 1 else 0.0
    by_size = 1 + (size - 1) * np.clip(alike, 0, 1)
    effective = count / np.maximum(np.maximum(effect, by_size), 1)
    errors = share * effective
    p = 1 - betainc(errors + 1, np.maximum(effective - errors, 1e-9), risk)
    return np.where(answered > 0, p, 1.0)


def risk_draws(table: Accepted, weights: NDArray) -> tuple[NDArray, NDArray]:
    """Return coverage per image's answer and risk of one threshold on each resample, float64 [R].

    Args:
        table: counts per image of one threshold and of all answers, [2, images].
        weights: how often each resample holds each image, float64 [images, R].

    Returns:
        The share of answers accepted; and the share of wrong ones among these, NaN where none is.
    """
    answered, every = table.answered @ weights
    wrong = table.wrong[0] @ weights
    risk = np.divide(wrong, answered, out=np.full(len(wrong), np.nan), where=answered > 0)
    return answered / every, risk
