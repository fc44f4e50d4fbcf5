"""Is a model calibrated at all? The test and the lower bound of ECE, against known truth."""

import numpy as np
import pytest
from scipy.special import expit

from helpers.known_truth import studies, true_ece
from prunecal.calibration.debiased import (
    BinTables,
    cross_fitted_signs,
    debiased_ace,
    debiased_ece,
    ece_if_calibrated,
    unbiased_miscalibration,
)
from prunecal.calibration.maps import equal_mass_index
from prunecal.statistics.bootstrap import image_folds, image_signs, image_weights, interval
from prunecal.statistics.calibrated import COLUMNS, calibration_rows
from prunecal.statistics.comparisons import metric_rows
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


def test_miscalibration_is_a_sum_over_pairs_of_rows_of_different_images():
    image, confidence, right = next(studies(np.random.default_rng(2), 1, 20, 1.5, each=4))
    weights = np.hstack([np.ones((20, 1)), image_weights(20, 3, seed=0)])
    values = unbiased_miscalibration(tables(image, confidence, right, 20), weights)
    for value, weight in zip(values, weights.T, strict=True):
        copies = [np.flatnonzero(image == i) for i in range(20) for _ in range(int(weight[i]))]
        rows = np.concatenate(copies)
        gap = (confidence - right)[rows]
        place = np.ceil(confidence[rows] * 15)
        together = place[:, None] == place
        apart = image[rows][:, None] != image[rows]
        pairs = (gap[:, None] * gap * together * apart).sum(axis=1)
        assert value == pytest.approx((pairs / together.sum(axis=1)).mean())


@pytest.mark.slow
def test_miscalibration_has_no_bias_and_its_interval_covers():
    rng = np.random.default_rng(3)
    margin = np.abs(1.8 + 1.4 * np.random.default_rng(9).normal(size=1_000_000))
    for temperature in (1.0, 1.8):
        place = np.minimum((expit(margin) * 15).astype(int), 14)
        gap = np.bincount(place, expit(margin) - expit(margin / temperature), 15)
        truth = (gap**2 / np.maximum(np.bincount(place, minlength=15), 1)).sum() / len(margin)
        measured, covered = [], 0
        for image, confidence, right in studies(rng, 150, IMAGES, temperature):
            values = unbiased_miscalibration(tables(image, confidence, right), WEIGHTS)
            low, high = interval(values[1:])
            covered += low <= truth <= high
            measured.append(values[0])
        error = np.std(measured) / np.sqrt(len(measured))
        assert abs(np.mean(measured) - truth) < 3 * error
        assert covered / 150 >= 0.9


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


class Measured:
    """What `calibration_rows` reads of a score file: two cells, 24 images unless said otherwise."""

    task = {"model": "m", "dataset": "d"}
    pooled = 0
    cells = [
        {"strategy": name, "family": name, "budget": budget, "parameters": {}}
        for name, budget in (("full", 36), ("random", 4))
    ]

    def __init__(self, images=24):
        rng = np.random.default_rng(0)
        draws = rng.normal(size=(2, 1, 199))
        self.subsets = [{"name": "all", "n": 240, "n_images": images}]
        self._values = {"ece": [0.021, 0.15], "ece_if_calibrated": [0.02, 0.02]}
        self._values |= {"ece_cross_fitted": [0.0, 0.14], "cox_slope": [1.0, 0.4]}
        self._values |= {"cox_intercept": [0.0, 0.1], "ece_debiased": [0.018, 0.145]}
        scale = {"cox_slope": 0.1, "cox_intercept": 0.1}
        self._draws = {
            name: np.reshape(values, (2, 1, 1)) + scale.get(name, 0.004) * draws
            for name, values in self._values.items()
        }
        self.facts = {"metrics": list(self._values)}

    def value(self, metric):
        return np.reshape(self._values[metric], (2, 1))

    def draws(self, metric):
        return self._draws[metric]

    def bin_use(self):
        return {"bins_filled": np.array([[8], [9]]), "largest_bin_share": np.array([[0.7], [0.5]])}


def test_the_table_says_of_each_cell_whether_it_is_calibrated():
    unpruned, pruned = calibration_rows(Measured(), 0.95)
    assert list(unpruned) == COLUMNS
    assert unpruned["evidence"] == "no evidence against calibration"
    assert unpruned["p"] > 0.3
    assert unpruned["slope_low"] < 1 < unpruned["slope_high"]
    assert pruned["p_adjusted"] == pytest.approx(1 / 200)
    assert 0.12 < pruned["ece_at_least"] < 0.14
    assert pruned["evidence"] == f"miscalibrated: ECE at least {pruned['ece_at_least']:.3f}"
    assert (pruned["bins_filled"], pruned["largest_bin_share"]) == (9, 0.5)


def test_few_images_tell_nothing_of_calibration():
    for row in calibration_rows(Measured(images=19), 0.95):
        assert row["evidence"] == "cannot be told from 19 images"
        assert row["p"] is None
    assert calibration_rows(Measured(images=1), 0.95)[1]["ece_at_least"] is None


def test_a_debiased_ece_may_be_zero_where_nothing_speaks_against_calibration():
    rows = {
        row["strategy"]: row
        for row in metric_rows(Measured(), 0.95)
        if row["metric"] == "ece_debiased"
    }
    assert rows["full"]["ci_low"] == 0
    assert rows["full"]["ci_high"] == pytest.approx(0.026, abs=0.004)
    assert rows["random"]["ci_low"] == pytest.approx(0.137, abs=0.004)
