"""The debiased ECE against its definition written out, and its interval against known truth."""

import numpy as np
import pytest
from scipy.stats import foldnorm

from helpers.known_truth import studies, true_ece
from prunecal.calibration.debiased import debiased_ece
from prunecal.statistics import clustered_bootstrap, image_weights


def written_out(confidence, correct, image, *, resampled):
    """Bin by bin and image by image."""
    total = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if not inside.any():
            continue
        n, gap = inside.sum(), confidence[inside] - correct[inside]
        mean, accuracy = gap.mean(), correct[inside].mean()
        residual = [(gap[image[inside] == i] - mean).sum() for i in np.unique(image[inside])]
        error = np.sqrt(np.sum(np.square(residual))) / n
        error = max(error, np.sqrt(accuracy * (1 - accuracy) / max(n - 1, 1)))
        error *= np.sqrt(2) if resampled else 1
        folded = foldnorm.mean(abs(mean) / error, scale=error) if error else abs(mean)
        total += n * (2 * abs(mean) - folded)
    return total / len(confidence)


def test_it_is_its_definition_on_the_sample_and_on_duplicated_images():
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(12), 9)
    confidence = rng.uniform(0.4, 1, len(image))
    correct = rng.uniform(size=len(image)) < confidence
    weights = np.hstack([np.ones((12, 1)), image_weights(12, 8, seed=0)])
    values = debiased_ece(confidence, correct, image, weights, 15)
    assert values[0] == pytest.approx(written_out(confidence, correct, image, resampled=False))
    for value, weight in zip(values[1:], weights.T[1:], strict=True):
        copies = [np.flatnonzero(image == i) for i in range(12) for _ in range(int(weight[i]))]
        names = np.repeat(np.arange(len(copies)), 9)
        rows = np.concatenate(copies)
        expected = written_out(confidence[rows], correct[rows], names, resampled=True)
        assert value == pytest.approx(expected, abs=1e-12)


def test_rows_written_again_change_nothing():
    """POPE asks some questions three times: noise that is copied is not averaged."""
    rng = np.random.default_rng(1)
    image = np.repeat(np.arange(40), 5)
    confidence = rng.uniform(0.6, 1, len(image))
    correct = rng.uniform(size=len(image)) < confidence
    once = debiased_ece(confidence, correct, image, np.ones((40, 1)), 15)
    rows = np.tile(np.arange(len(image)), 3)
    again = debiased_ece(confidence[rows], correct[rows], image[rows], np.ones((40, 1)), 15)
    assert abs(again - once) < 0.004


@pytest.mark.parametrize("temperature", [1.15, 1.8])
def test_its_interval_covers_a_small_ece_which_that_of_the_raw_ece_misses(temperature):
    truth = true_ece(temperature)
    covered = {"ece": 0, "ece_debiased": 0}
    rng = np.random.default_rng(3)
    for image, confidence, right in studies(rng, 100, 100, temperature):
        cells = {"a": (confidence, right)}
        for metric, measured in clustered_bootstrap(image, cells, list(covered), resamples=400)[
            "a"
        ].items():
            low, high = measured.interval()
            covered[metric] += max(low, 0) <= truth <= high
    assert covered["ece_debiased"] >= 90
    if truth < 0.03:
        assert covered["ece"] < 60
