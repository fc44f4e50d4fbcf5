"""Is a model calibrated at all? The test and the lower bound of ECE, against known truth."""

import numpy as np
import pytest

from helpers.known_truth import studies, true_ece
from prunecal.calibration.debiased import (
    BinTables,
    cross_fitted_signs,
    debiased_ace,
    debiased_ece,
    ece_if_calibrated,
)
from prunecal.calibration.maps import equal_mass_index
from prunecal.statistics.bootstrap import image_folds, image_signs, image_weights, interval
from prunecal.statistics.significance import excess_p

IMAGES, SPLITS = 100, 3
FOLDS = np.stack([image_folds(IMAGES, 0, split) for split in range(SPLITS)])
WEIGHTS = np.hstack([np.ones((IMAGES, 1)), image_weights(IMAGES, 300, seed=0)])


def tables(image, confidence, right, clusters=IMAGES):
    return BinTables.of(confidence, right, image, clusters, 15)


def test_the_sign_of_a_gap_comes_from_one_half_and_its_size_from_the_other():
    image, confidence, right = next(studies(np.random.default_rng(0), 1, IMAGES, 1.5))
    expected = 0.0
    for fold in FOLDS:
        for half in (0, 1):
            for low in np.arange(15) / 15:
                inside = (confidence > low) & (confidence <= low + 1 / 15)
                gap = confidence - right
                sign = np.sign(gap[inside & (fold[image] == half)].sum())
                expected += sign * gap[inside & (fold[image] != half)].sum()
    value = cross_fitted_signs(tables(image, confidence, right), FOLDS, WEIGHTS)
    assert value[0] == pytest.approx(expected / SPLITS / len(image))


def test_a_replicate_of_a_calibrated_model_flips_the_residuals_of_whole_images():
    image, confidence, right = next(studies(np.random.default_rng(1), 1, 5, 1.5))
    signs = image_signs(5, 4, seed=0)
    values = ece_if_calibrated(tables(image, confidence, right, 5), signs)
    for value, sign in zip(values, signs.T, strict=True):
        outcome = confidence - sign[image] * (confidence - right)
        place = np.minimum((confidence * 15).astype(int), 14)
        gaps = np.bincount(place, confidence - outcome, 15)
        assert value == pytest.approx(np.abs(gaps).sum() / len(image))
    np.testing.assert_array_equal(np.abs(signs), 1)


@pytest.mark.slow
def test_calibrated_models_are_called_miscalibrated_in_five_percent_and_bounds_hold():
    """Of 300 studies each: a calibrated model, and one that is overconfident."""
    signs, count = image_signs(IMAGES, 300, seed=0), 300
    for temperature, least, most in ((1.0, 0.01, 0.09), (1.8, 0.99, 1.0)):
        truth = true_ece(temperature) if temperature > 1 else 0.0
        rejected = false = shown = 0
        rng = np.random.default_rng(4)
        for image, confidence, right in studies(rng, count, IMAGES, temperature):
            sums = tables(image, confidence, right)
            ece = np.abs(sums.gap.sum(axis=1)).sum() / len(image)
            null = ece_if_calibrated(sums, signs)
            rejected += excess_p(np.array([ece]), null[None])[0][0] <= 0.05
            bound = np.quantile(cross_fitted_signs(sums, FOLDS, WEIGHTS)[1:], 0.025)
            false += bound > truth
            shown += bound > 0
        assert least <= rejected / count <= most
        assert false / count <= 0.025
        if truth:
            assert shown / count > 0.9


def test_the_family_of_cells_is_adjusted_by_the_step_down_written_out():
    rng = np.random.default_rng(5)
    null = rng.gamma(4, size=(8, 199)) * np.arange(1, 9)[:, None] + 0.2 * rng.gamma(4, size=199)
    value = null[:, :20].mean(axis=1) * np.linspace(0.8, 2.5, 8)
    alone, adjusted = excess_p(value, null)
    np.testing.assert_allclose(alone, (1 + (null >= value[:, None]).sum(axis=1)) / 200)
    mean, error = null.mean(axis=1), null.std(axis=1)
    statistic, noise = (value - mean) / error, (null - mean[:, None]) / error[:, None]
    left, before = list(range(8)), 0.0
    while left:
        top = max(left, key=lambda j: statistic[j])
        before = max(before, (1 + (noise[left].max(axis=0) >= statistic[top]).sum()) / 200)
        assert adjusted[top] == pytest.approx(before)
        left.remove(top)


def test_the_debiased_adaptive_ece_is_the_debiased_ece_of_ranks():
    image, confidence, right = next(studies(np.random.default_rng(6), 1, IMAGES, 1.3))
    place = equal_mass_index(confidence, 10)
    np.testing.assert_array_equal(np.bincount(place), len(image) // 10)
    gaps = np.bincount(place, confidence - right)
    raw = np.abs(gaps).sum() / len(image)
    value = debiased_ace(confidence, right, image, WEIGHTS, 10)
    assert value[0] < raw
    # with one bin both kinds of bins are the same
    rows = confidence, right, image, WEIGHTS, 1
    np.testing.assert_array_equal(debiased_ace(*rows), debiased_ece(*rows))
    low, high = interval(value[1:])
    assert low <= value[0] <= high
