"""Thresholds, non-inferiority and selected minima keep the error rates that they promise."""

import numpy as np
import pytest
from scipy.special import expit, ndtr, ndtri
from scipy.stats import binom, ttest_1samp

from prunecal.calibration.debiased import BinTables, cross_fitted_signs, debiased_ece
from prunecal.statistics.bootstrap import image_folds, image_weights, interval
from prunecal.statistics.noninferiority import noninferiority_p, passed, provable_margin
from prunecal.statistics.selection import simultaneous_interval
from prunecal.statistics.thresholds import (
    Answers,
    accepted,
    guaranteed_threshold,
    largest_coverage,
    risk_draws,
    risk_p_values,
)


def answers(rng, images, each, shift=0.0):
    """Draw answers whose chance to be right is expit(log-odds of the confidence - shift).

    Answers of an image are alike, in confidence and, given it, in being right.
    """
    image = np.repeat(np.arange(images), each)
    shared, own = rng.normal(size=(2, images)), rng.normal(size=(2, len(image)))
    certainty = np.abs(2.2 + 1.5 * (np.sqrt(0.3) * shared[0][image] + np.sqrt(0.7) * own[0]))
    luck = ndtr(np.sqrt(0.25) * shared[1][image] + np.sqrt(0.75) * own[1])
    return Answers(expit(certainty), luck < expit(certainty - shift), image, images)


CERTAINTY = np.abs(2.2 + 1.5 * ndtri((np.arange(100_000) + 0.5) / 100_000))  # of all answers


def true_risk(threshold, shift):
    """Return the risk of a threshold on all answers that `answers` can draw."""
    return 1 - expit(CERTAINTY[expit(CERTAINTY) >= threshold] - shift).mean()


def test_accepted_answers_are_counted_as_one_by_one():
    rng = np.random.default_rng(0)
    drawn = answers(rng, 12, 5)
    drawn = drawn._replace(confidence=drawn.confidence.round(2))  # ties
    limits = np.unique(drawn.confidence)[::-3]
    table = accepted(drawn, limits)
    for row, limit in enumerate(limits):
        for image in range(12):
            mine = (drawn.image == image) & (drawn.confidence >= limit)
            assert table.answered[row, image] == mine.sum()
            assert table.wrong[row, image] == (mine & ~drawn.correct).sum()


def test_the_in_sample_threshold_has_the_largest_coverage_of_all():
    rng = np.random.default_rng(1)
    drawn = answers(rng, 60, 6)
    drawn = drawn._replace(confidence=drawn.confidence.round(2))

    def fits(limit):
        return (~drawn.correct[drawn.confidence >= limit]).mean() <= 0.05

    expected = min(limit for limit in np.unique(drawn.confidence) if fits(limit))
    assert largest_coverage(drawn) == expected
    assert np.isnan(largest_coverage(drawn._replace(correct=np.zeros(360, dtype=bool))))
    assert largest_coverage(drawn._replace(correct=np.ones(360, dtype=bool))) == min(
        drawn.confidence
    )


def test_p_of_a_risk_is_the_binomial_tail_where_images_have_one_answer():
    rng = np.random.default_rng(2)
    drawn = answers(rng, 300, 1)
    limits = np.quantile(drawn.confidence, [0.8, 0.5, 0.0])
    table = accepted(drawn, limits)
    count, wrong = table.answered.sum(axis=1), table.wrong.sum(axis=1)
    exact = binom.cdf(wrong, count, 0.05)
    # n - 1 images in the variance: within a per mille of the exact tail
    assert risk_p_values(table, 0.05) == pytest.approx(exact, rel=0.03)


def test_without_an_error_an_image_counts_once():
    right = Answers(np.full(90, 0.9), np.ones(90, dtype=bool), np.repeat(np.arange(30), 3), 30)
    assert risk_p_values(accepted(right, [0.9]), 0.05)[0] == pytest.approx(0.95**30)
    assert np.isnan(guaranteed_threshold(right))  # 0.95 ** 30 is above 10 %


def test_risk_on_resamples_is_that_of_repeated_rows():
    rng = np.random.default_rng(3)
    drawn = answers(rng, 8, 4)
    weights = image_weights(8, 5, 0)
    coverage, risk = risk_draws(accepted(drawn, [0.85, -1.0]), weights)
    for draw in range(5):
        often = weights[drawn.image, draw].astype(int)
        confidence, correct = (np.repeat(x, often) for x in (drawn.confidence, drawn.correct))
        assert coverage[draw] == pytest.approx((confidence >= 0.85).mean())
        assert risk[draw] == pytest.approx(1 - correct[confidence >= 0.85].mean())


@pytest.mark.slow
@pytest.mark.parametrize(("images", "each", "shift"), [(400, 12, 0.15), (400, 3, 0.3), (150, 1, 0)])
def test_the_guarantee_holds_at_its_delta(images, each, shift):
    rng = np.random.default_rng(4)
    tried = [answers(rng, images, each, shift) for _ in range(100)]
    for choose, fewest, most in ((guaranteed_threshold, 0, 10), (largest_coverage, 30, 75)):
        limits = [choose(one) for one in tried]
        above = sum(true_risk(limit, shift) > 0.05 for limit in limits if limit == limit)
        assert fewest <= above <= most


@pytest.mark.slow
def test_the_guarantee_is_not_bought_by_never_answering():
    rng = np.random.default_rng(5)
    tried = [answers(rng, 400, 12, 0.15) for _ in range(20)]
    shares = [(one.confidence >= guaranteed_threshold(one)).mean() for one in tried]
    best = [(one.confidence >= largest_coverage(one)).mean() for one in tried]
    assert np.mean(shares) > 0.6 * np.mean(best)


def test_chains_of_one_hypothesis_are_holms_procedure():
    rng = np.random.default_rng(6)
    for _ in range(50):
        p = rng.uniform(size=8) ** 3
        counts = passed({str(place): [one] for place, one in enumerate(p)}, 0.05)
        order = np.argsort(p)
        fails = np.append(p[order] > 0.05 / np.arange(8, 0, -1), True)
        assert {place for place in range(8) if counts[str(place)]} == {*order[: fails.argmax()]}


def test_a_chain_stops_at_its_first_hypothesis_that_stands():
    counts = passed({"a": [0.001, 0.2, 0.001], "b": [float("nan"), 0.0], "c": []}, 0.05)
    assert counts == {"a": 1, "b": 0, "c": 0}
    # what chain a leaves over when it is done is enough for the second of b
    assert passed({"a": [0.001], "b": [0.02, 0.04]}, 0.05) == {"a": 1, "b": 2}
    assert passed({"a": [0.03], "b": [0.02, 0.02]}, 0.05) == {"a": 1, "b": 2}
    assert passed({"a": [0.06], "b": [0.02, 0.04]}, 0.05) == {"a": 0, "b": 1}


def test_p_of_non_inferiority_is_students():
    rng = np.random.default_rng(7)
    lost = rng.normal(0.01, 0.1, size=60)  # per image
    draws = lost @ image_weights(60, 4000, 0) / 60
    p = noninferiority_p([lost.mean()], draws[None], 0.02, 60)
    assert p[0] == pytest.approx(ttest_1samp(lost, 0.02, alternative="less").pvalue, rel=0.2)
    flat = np.zeros((2, 50))
    unseen = binom.pmf(0, 60, 0.02)  # no image among 60 of the 2 % that lose everything
    assert noninferiority_p([0.0, 0.05], flat, 0.02, 60) == pytest.approx([unseen, 1.0])
    least = provable_margin(flat, chains=4, images=60)[0]
    assert noninferiority_p([0.0], flat[:1], least, 60)[0] == pytest.approx(0.05 / 4)
    assert np.isnan(noninferiority_p([0.0], np.full((1, 50), np.nan), 0.02, 60)[0])


@pytest.mark.slow
def test_no_cell_of_a_family_is_falsely_called_no_worse_in_more_than_5_percent():
    rng = np.random.default_rng(8)
    weights = image_weights(200, 400, 1) / 200
    false = 0
    for _ in range(150):
        shared = rng.normal(size=200)
        lost = 0.02 + 0.1 * (0.7 * shared + 0.7 * rng.normal(size=(24, 200)))  # at the margin
        p = noninferiority_p(lost.mean(axis=1), lost @ weights, 0.02, 200)
        chains = {str(number): p[number::8].tolist() for number in range(8)}
        false += any(passed(chains).values())
    assert false <= 14  # 99 % of 150 studies at 5 % have at most 14


@pytest.mark.slow
def test_an_ece_at_the_margin_is_rarely_called_no_worse():
    """The unpruned model is calibrated, where debiased ECE would flatter the pruned one."""
    rng = np.random.default_rng(10)
    images, each, shift = 300, 10, 0.27
    margin = (expit(CERTAINTY) - expit(CERTAINTY - shift)).mean()  # the pruned model's true ECE
    weights = np.hstack([np.ones((images, 1)), image_weights(images, 200, 1)])
    folds = np.stack([image_folds(images, 0, split) for split in range(3)])
    reference, flattering, shown = [], [], 0
    for _ in range(100):
        unpruned, pruned = answers(rng, images, each), answers(rng, images, each, shift)
        tables = BinTables.of(*unpruned[:3], images, 15)
        low = cross_fitted_signs(tables, folds, weights)
        high = debiased_ece(*pruned[:3], weights, 15)
        harm = high - low
        shown += noninferiority_p(harm[:1], harm[None, 1:], margin, images)[0] < 0.05
        reference.append(low[0])
        flattering.append(debiased_ece(*unpruned[:3], weights[:, :1], 15)[0])
    assert abs(np.mean(reference)) < 0.002 < np.mean(flattering)  # the truth is 0
    assert shown <= 11  # of 100 at 5 %, 99 % have at most this


def test_the_interval_of_a_selected_minimum_covers_it():
    rng = np.random.default_rng(12)
    weights = image_weights(150, 500, 2) / 150
    covered = {"corrected": 0, "plain": 0}
    for _ in range(100):
        cells = 0.1 + 0.1 * rng.normal(size=(40, 150))  # every true value is 0.1
        values, draws = cells.mean(axis=1), cells @ weights
        low, high = simultaneous_interval(values, draws)[:, values.argmin()]
        covered["corrected"] += low <= 0.1 <= high
        low, high = interval(draws[values.argmin()])
        covered["plain"] += low <= 0.1 <= high
    assert covered["plain"] < 60
    assert covered["corrected"] >= 90
