"""The clustered bootstrap against duplicated rows, closed forms and simulated clustered data."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from helpers.plain_metrics import PLAIN
from prunecal import calibration
from prunecal.calibration import smooth
from prunecal.calibration._checks import padded
from prunecal.calibration.crossfit import Halves, Splits, cross_fitted_ece, temperatures
from prunecal.calibration.debiased import BinTables, debiased_total
from prunecal.calibration.metrics import compute
from prunecal.calibration.ranked import CHUNK
from prunecal.calibration.recalibration import GRID, slopes
from prunecal.calibration.sample import Sample, plain
from prunecal.calibration.spline import Spline
from prunecal.statistics.bootstrap import (
    clustered_bootstrap,
    image_folds,
    image_weights,
    interval,
    normal_interval,
)
from prunecal.statistics.significance import minimum_detectable, smallest_margin, unadjusted_p


def rows(seed, ties, accuracy=0.7, n=90, images=15):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, images, n)
    confidence = rng.integers(3, 10, n) / 10 if ties else rng.uniform(0.3, 1, n)
    return image, confidence, rng.uniform(size=n) < accuracy


@pytest.mark.parametrize("metric", PLAIN)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("accuracy", [0.7, 0.97])
def test_resampled_metric_equals_the_plain_one_on_duplicated_rows(metric, ties, accuracy):
    image, confidence, correct = rows(3, ties, accuracy)
    found = clustered_bootstrap(image, {"a": (confidence, correct)}, [metric], resamples=40)
    found = found["a"][metric]
    assert found.value == pytest.approx(PLAIN[metric](confidence, correct), abs=1e-12)
    weights = image_weights(len(np.unique(image)), 40, seed=0)
    _, cluster = np.unique(image, return_inverse=True)
    for draw, drawn in zip(found.draws, weights.T, strict=True):
        copies = np.repeat(np.arange(len(image)), drawn[cluster].astype(int))
        expected = PLAIN[metric](confidence[copies], correct[copies])
        assert draw == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_resamples_are_cut_into_chunks_without_a_trace():
    image, confidence, correct = rows(4, ties=True)
    weights = image_weights(15, CHUNK + 7, seed=2)
    whole = Sample(confidence, correct, image, weights).ranked
    last = Sample(confidence, correct, image, weights[:, -7:]).ranked
    for name, draws in whole.items():
        np.testing.assert_allclose(draws[-7:], last[name], atol=1e-12)


@pytest.mark.parametrize("options", [2, 5])
def test_resampled_temperatures_equal_direct_minimisation_on_duplicated_rows(options):
    rng = np.random.default_rng(options)
    n, images = 240, 20
    cluster = np.repeat(np.arange(images), n // images)
    logits = [rng.normal(size=k) * 3 for k in rng.integers(2, options + 1, n)]
    label = np.array([rng.choice(len(z), p=np.exp(z / 2) / np.exp(z / 2).sum()) for z in logits])
    table, fold = padded(logits), image_folds(images, seed=0)
    weights = image_weights(images, 6, seed=1)
    correct = table.argmax(axis=1) == label
    halves = Halves(fold[None], weights)
    fitted = temperatures(slopes(table, label), cluster, halves)[0]
    scaled = cross_fitted_ece(table, correct, cluster, halves, 0, fitted, 15)
    for draw in range(6):
        drawn = np.repeat(np.arange(images), weights[:, draw].astype(int))
        copies = np.concatenate([np.flatnonzero(cluster == image) for image in drawn])
        half = fold[cluster[copies]]
        direct = [
            calibration.temperature(
                [logits[i] for i in copies[half == f]], label[copies[half == f]]
            )
            for f in (0, 1)
        ]
        np.testing.assert_allclose(fitted[:, draw], direct, rtol=1e-4)
        confidence = [
            np.exp(z := logits[i] / fitted[1 - f, draw]).max() / np.exp(z).sum()
            for i, f in zip(copies, half, strict=True)
        ]
        # an image drawn twice is two images
        again = np.repeat(np.arange(len(drawn)), n // images)
        binned = BinTables.of(np.array(confidence), correct[copies], again, len(drawn), 15)
        total = debiased_total(binned.moments(np.ones((len(drawn), 1))), np.array([True]))
        assert scaled[draw] == pytest.approx(total[0] / len(copies), abs=1e-9)


@pytest.mark.parametrize("miss", [0.0, 0.02, 0.1, 0.3])
def test_bandwidths_told_in_few_digits_are_those_computed_in_full(miss, monkeypatch):
    image, confidence, _ = rows(7, ties=False, n=600, images=60)
    correct = np.random.default_rng(8).uniform(size=600) < confidence - miss
    sample = confidence, correct, image, image_weights(60, 40, seed=0)
    told = smooth.smooth_calibration_errors(*sample)
    monkeypatch.setattr(smooth, "DOUBT", np.inf)
    np.testing.assert_array_equal(told, smooth.smooth_calibration_errors(*sample))


def test_splines_are_those_of_scipy_to_the_last_bit():
    curve = np.random.default_rng(5).normal(size=(len(GRID), 50)).cumsum(axis=0)
    left, number = np.random.default_rng(6).integers(0, len(GRID) - 1, 50), np.arange(50)
    expected = CubicSpline(GRID, curve).c[:, left, number]
    np.testing.assert_array_equal(Spline(GRID).coefficients(curve, left), expected)


def test_binning_at_a_few_temperatures_is_close_to_binning_at_each():
    rng = np.random.default_rng(4)
    images, each = 60, 10
    cluster = np.repeat(np.arange(images), each)
    table = rng.normal(size=(len(cluster), 3)) * 4
    label = np.array([rng.choice(3, p=np.exp(z / 2) / np.exp(z / 2).sum()) for z in table])
    correct, fold = table.argmax(axis=1) == label, image_folds(images, seed=0)
    weights = np.hstack([np.ones((images, 1)), image_weights(images, 300, seed=1)])
    halves = Halves(fold[None], weights)
    fitted = temperatures(slopes(table, label), cluster, halves)[0]
    rows = table, correct, cluster
    together = cross_fitted_ece(*rows, halves, 0, fitted, 15)
    alone = [
        cross_fitted_ece(*rows, Halves(fold[None], weights[:, [draw]]), 0, fitted[:, [draw]], 15)[0]
        for draw in range(301)
    ]
    assert together[0] == alone[0]
    difference = together - np.array(alone)
    assert abs(difference.mean()) < 0.05 * np.std(alone)
    assert difference.std() < 0.35 * np.std(alone)


def test_no_temperature_is_reported_at_a_limit():
    """All answers of one half right: its likelihood grows as T falls."""
    table = np.array([[1.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.5, 0.0], [1.0, 0.0], [2.0, 0.0]])
    label = np.array([0, 0, 0, 0, 1, 0])
    cluster = np.arange(6)
    one = np.ones((6, 1))
    splits = Splits(table, slopes(table, label), Halves(np.array([[0, 0, 0, 1, 1, 1]]), one))
    sample = Sample(np.full(6, 0.7), table.argmax(1) == label, cluster, one, splits=splits)
    assert np.isnan(compute("temperature", sample)[0])
    assert np.isnan(compute("log_temperature", sample)[0])
    both = Splits(table, slopes(table, label), Halves(np.array([[0, 1, 0, 1, 0, 0]]), one))
    assert np.isnan(compute("temperature", replace(sample, splits=both))[0])


def test_temperature_of_right_answers_alone_ends_at_the_limit():
    table, label = padded(np.array([[1.0, 0.0], [2.0, 0.0]])), np.zeros(2, dtype=int)
    halves = Halves(np.arange(2)[None], np.ones((2, 1)))
    (fitted,) = temperatures(slopes(table, label), np.arange(2), halves)
    np.testing.assert_allclose(fitted[:, 0], 0.01)
    (wrong,) = temperatures(slopes(table, 1 - label), np.arange(2), halves)
    np.testing.assert_allclose(wrong[:, 0], 100)


def test_every_resample_holds_as_many_images_as_there_are():
    weights = image_weights(30, 50, seed=0)
    assert weights.shape == (30, 50)
    np.testing.assert_array_equal(weights.sum(axis=0), 30)
    np.testing.assert_array_equal(weights, weights.astype(int))
    np.testing.assert_array_equal(weights[:, :20], image_weights(30, 20, seed=0))
    assert (weights != image_weights(30, 50, seed=1)).any()


def test_cells_share_their_resamples():
    image, confidence, correct = rows(5, ties=False)
    cells = {"a": (confidence, correct), "b": (confidence, correct), "c": (confidence, ~correct)}
    found = clustered_bootstrap(image, cells, ["ece", "accuracy", "smece"], resamples=30)
    for metric in ("ece", "smece"):
        np.testing.assert_array_equal(found["a"][metric].draws, found["b"][metric].draws)
    together = found["a"]["accuracy"].draws + found["c"]["accuracy"].draws
    np.testing.assert_allclose(together, 1)


def test_names_of_images_do_not_matter_but_their_order_does_not_change_within_a_seed():
    image, confidence, correct = rows(6, ties=False)
    numbers = clustered_bootstrap(image, {"a": (confidence, correct)}, ["ece"], resamples=10)
    names = clustered_bootstrap(
        [f"image-{i:03d}" for i in image], {"a": (confidence, correct)}, ["ece"], resamples=10
    )
    np.testing.assert_array_equal(numbers["a"]["ece"].draws, names["a"]["ece"].draws)


@pytest.mark.parametrize(
    ("cells", "metrics", "message"),
    [
        ({"a": ([0.5], [1])}, ["ece"], "rows"),
        ({"a": ([0.5, 0.6], [1, 1])}, ["eces"], "unknown"),
        ({"a": ([0.5, 1.6], [1, 1])}, ["ece"], "confidence"),
    ],
)
def test_malformed_bootstrap_is_a_value_error(cells, metrics, message):
    with pytest.raises(ValueError, match=message):
        clustered_bootstrap(["i", "j"], cells, metrics, resamples=5)


def test_folds_halve_the_images():
    fold = image_folds(31, seed=0)
    assert fold.sum() == 15
    assert (fold != image_folds(31, seed=1)).any()


def test_interval_leaves_undefined_draws_out():
    draws = np.array([[1.0, 2, 3, 4, np.nan], [np.nan] * 5])
    low, high = interval(draws, level=0.5)
    assert (low[0], high[0]) == (1.75, 3.25)
    assert np.isnan([low[1], high[1]]).all()


def test_p_value_is_uniform_without_a_difference():
    rng = np.random.default_rng(0)
    delta = rng.normal(size=4000)
    draws = delta[:, None] + rng.normal(size=(4000, 199))
    share = (unadjusted_p(delta, draws) <= 0.1).mean()
    assert share == pytest.approx(0.1, abs=0.02)


def test_normal_interval_leaves_undefined_draws_out():
    draws = np.array([[1.0, 2, 3, np.nan], [1.0, np.nan, np.nan, np.nan]])
    low, high = normal_interval(np.array([5.0, 5.0]), draws)
    assert (low[0], high[0]) == pytest.approx((5 - 1.959964, 5 + 1.959964))
    assert np.isnan([low[1], high[1]]).all()


def test_equal_cells_are_shown_within_the_smallest_margin_with_eighty_percent_power():
    rng = np.random.default_rng(1)
    error = 0.3
    margin = float(smallest_margin(rng.normal(scale=error, size=20_000), 10**6))
    estimates = rng.normal(scale=error, size=20_000)
    above, below = estimates + 1.645 * error < margin, estimates - 1.645 * error > -margin
    assert above.mean() == pytest.approx(0.8, abs=0.01)  # each of the two one-sided tests
    assert below.mean() == pytest.approx(0.8, abs=0.01)


def test_minimum_detectable_difference_is_found_with_eighty_percent_power():
    rng = np.random.default_rng(0)
    error = 0.3
    size = float(minimum_detectable(rng.normal(scale=error, size=20000), 10**6))
    estimates = size + rng.normal(scale=error, size=20000)
    assert (np.abs(estimates) > 1.96 * error).mean() == pytest.approx(0.8, abs=0.02)


def test_brier_decomposition_is_exact_where_a_bin_has_one_confidence():
    rng = np.random.default_rng(1)
    confidence = rng.choice([0.05, 0.3, 0.55, 0.8, 0.95], 300)
    sample = plain(confidence, rng.uniform(size=300) < 0.6)

    def value(key):
        return compute(key, sample)[0]

    terms = [value(f"brier_{term}") for term in ("reliability", "resolution", "uncertainty")]
    assert value("brier") == pytest.approx(terms[0] - terms[1] + terms[2])
    assert value("ece") == pytest.approx(value("ece_over") + value("ece_under"))
    assert value("overconfidence") == pytest.approx(value("ece_over") - value("ece_under"))


def test_debiased_error_of_calibrated_predictions_is_nearer_to_zero():
    rng = np.random.default_rng(2)
    biased, debiased = [], []
    for _ in range(200):
        confidence = rng.uniform(0.4, 1, 300)
        sample = plain(confidence, rng.uniform(size=300) < confidence)
        biased.append(compute("ece", sample)[0])
        debiased.append(compute("ece_debiased", sample)[0])
    assert 0 < np.mean(debiased) < 0.65 * np.mean(biased)


def clustered_rows(rng, images, per_image=6):
    """Two over-confident cells whose rows are alike within an image."""
    image = np.repeat(np.arange(images), per_image)
    skill = 1 + 1.2 * rng.normal(size=images)[image] + rng.normal(size=len(image))
    cells = {}
    for name, slope, shift in (("a", 1.0, 1.0), ("b", 1.5, 2.5)):
        confidence = 0.5 + 0.5 / (1 + np.exp(-(slope * skill + shift)))
        cells[name] = confidence, rng.uniform(size=len(image)) < 1 / (1 + np.exp(-skill))
    return image, cells


def estimates(image, cells, resamples, seed):
    """Return the four numbers whose intervals are checked, each as (value, draws)."""
    settings = {"resamples": resamples, "seed": seed}
    a = {"a": cells["a"]}
    found = clustered_bootstrap(image, a, ["accuracy", "brier", "ece", "aurc"], **settings)["a"]
    other = clustered_bootstrap(image, {"b": cells["b"]}, ["ece"], **settings)["b"]["ece"]
    difference = other.value - found["ece"].value, other.draws - found.pop("ece").draws
    return found | {"ece difference": difference}


@pytest.mark.slow
def test_intervals_cover_the_truth_of_clustered_data_and_naive_ones_do_not():
    rng = np.random.default_rng(0)
    population = estimates(*clustered_rows(rng, 100_000), resamples=1, seed=0)
    truth = {name: value for name, (value, _) in population.items()}
    simulations, naive_simulations = 500, 100
    hits, naive_hits = dict.fromkeys(truth, 0), 0
    for simulation in range(simulations):
        image, cells = clustered_rows(rng, 120)
        for name, (_, draws) in estimates(image, cells, 300, simulation).items():
            low, high = interval(draws)
            hits[name] += low <= truth[name] <= high
        if simulation < naive_simulations:  # the mistake: rows taken for independent
            rows = np.arange(len(image))
            naive = clustered_bootstrap(rows, {"a": cells["a"]}, ["accuracy"], resamples=300)
            low, high = naive["a"]["accuracy"].interval()
            naive_hits += low <= truth["accuracy"] <= high
    for name, count in hits.items():
        assert 0.93 <= count / simulations <= 0.97, name
    assert naive_hits / naive_simulations < 0.90
