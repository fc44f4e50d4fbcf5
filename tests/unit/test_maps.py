"""Isotonic and histogram maps against their definitions, and that no half sees its own answers."""

import numpy as np
import pytest

from helpers.known_truth import studies
from prunecal.calibration.debiased import debiased_ece
from prunecal.calibration.maps import cross_fitted, equal_mass_index, histogram, isotonic, pooled
from prunecal.statistics.bootstrap import image_folds, image_weights
from prunecal.statistics.significance import unadjusted_p


def rows(n=300, seed=0, levels=None):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.5, 1, n)
    if levels:
        confidence = np.ceil(confidence * levels) / levels
    return confidence, rng.uniform(size=n) < confidence**2


@pytest.mark.parametrize("levels", [None, 30])
def test_isotonic_regression_is_the_largest_of_smallest_means(levels):
    """The max-min formula of Barlow et al. (1972), over all blocks of tied rows."""
    confidence, correct = rows(40, levels=levels)
    knots, accuracy = pooled(confidence, correct)
    assert (np.diff(knots) > 0).all()
    groups = [correct[confidence == knot] for knot in knots]
    for index, value in enumerate(accuracy):
        best = max(
            min(np.concatenate(groups[low : high + 1]).mean() for high in range(index, len(knots)))
            for low in range(index + 1)
        )
        assert value == pytest.approx(best)


def test_isotonic_regression_is_linear_between_the_fit_and_constant_beyond_it():
    fitted = isotonic(np.array([0.6, 0.6, 0.8]), np.array([True, False, True]))
    np.testing.assert_allclose(fitted(np.array([0.1, 0.6, 0.7, 0.8, 0.99])), [0.5, 0.5, 0.75, 1, 1])


def test_histogram_binning_gives_the_accuracy_of_bins_of_equally_many_rows():
    confidence, correct = rows(300)
    fitted = histogram(confidence, correct, 15)
    order = np.argsort(confidence)
    for part in np.split(order, 15):
        np.testing.assert_allclose(fitted(confidence[part]), correct[part].mean())
    assert fitted(np.array([0.0]))[0] == correct[order[:20]].mean()
    assert fitted(np.array([1.0]))[0] == correct[order[-20:]].mean()


def test_equal_confidences_share_a_bin():
    confidence = np.repeat([0.5, 0.7, 0.9], [10, 2, 90])
    place = equal_mass_index(confidence, 5)
    assert [len(set(place[confidence == level])) for level in (0.5, 0.7, 0.9)] == [1, 1, 1]
    correct = np.arange(102) % 2 == 0
    fitted = histogram(confidence, correct, 5)
    for level in place:
        inside = place == level
        np.testing.assert_allclose(fitted(confidence[inside]), correct[inside].mean())


def test_a_half_is_recalibrated_by_the_other_halfs_answers_alone():
    confidence, correct = rows(400, seed=1)
    image = np.repeat(np.arange(40), 10)
    folds = np.stack([np.arange(40) % 2, np.arange(40) // 20])
    recalibrated = cross_fitted(confidence, correct, image, folds, 10)
    for split, fold in enumerate(folds):
        inside = fold[image] == 0
        other = correct ^ inside  # flips the answers of half 0 alone
        changed = cross_fitted(confidence, other, image, folds[[split]], 10)
        for name, table in recalibrated.items():
            np.testing.assert_array_equal(changed[name][0, inside], table[split, inside])
            assert (changed[name][0, ~inside] != table[split, ~inside]).any()


def test_one_image_has_no_other_half():
    recalibrated = cross_fitted(*rows(9), np.zeros(9, dtype=int), np.zeros((1, 1), dtype=int), 5)
    assert all(np.isnan(table).all() for table in recalibrated.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["isotonic", "histogram"])
def test_resamples_that_keep_the_fits_show_how_differences_vary_over_studies(name):
    """Two models of one truth, each study with fits of its own: no difference but by chance."""
    images, count = 80, 60
    weights = np.hstack([np.ones((images, 1)), image_weights(images, 150, 1)])
    folds = np.stack([image_folds(images, 0, split) for split in range(3)])
    values = [
        np.mean(
            [
                debiased_ece(mended, right, image, weights, 15)
                for mended in cross_fitted(confidence, right, image, folds, 15)[name]
            ],
            axis=0,
        )
        for image, confidence, right in studies(np.random.default_rng(3), 2 * count, images, 1.6)
    ]
    difference = np.array(values[::2]) - np.array(values[1::2])
    errors = difference[:, 1:].std(axis=1)
    assert 0.8 < errors.mean() / difference[:, 0].std() < 1.3
    assert (unadjusted_p(difference[:, 0], difference[:, 1:]) < 0.05).sum() <= 7  # 99 % at 5 %
