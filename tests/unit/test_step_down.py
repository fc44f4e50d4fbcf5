"""The step-down against the procedure written out, and its error rate against simulation."""

import numpy as np
import pytest

from prunecal.statistics import image_weights, step_down, unadjusted_p
from prunecal.statistics.significance import FEWEST_IMAGES


def family(seed, members, resamples, effect=0.0):
    """Return correlated differences and their draws; effects in the first half."""
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.5, 2, members)
    shared = rng.normal(size=resamples + 1)
    noise = scale[:, None] * (0.6 * shared + 0.8 * rng.normal(size=(members, resamples + 1)))
    shift = np.where(np.arange(members) < members // 2, effect, 0.0) * scale
    delta = shift + noise[:, 0]
    return delta, delta[:, None] + noise[:, 1:]


def written_out(delta, draws):
    """Reject one member at a time, each against the largest noise of those that are left."""
    error = draws.std(axis=1, ddof=1)
    statistic = np.abs(delta) / error
    noise = np.abs(draws - draws.mean(axis=1, keepdims=True)) / error[:, None]
    left, p, before = list(range(len(delta))), np.empty(len(delta)), 0.0
    while left:
        top = max(left, key=lambda j: statistic[j])
        reached = (noise[left].max(axis=0) >= statistic[top]).sum()
        p[top] = before = max(before, (1 + reached) / (draws.shape[1] + 1))
        left.remove(top)
    return p


@pytest.mark.parametrize("seed", range(5))
def test_the_step_down_equals_the_procedure_written_out(seed):
    delta, draws = family(seed, 12, 399, effect=3)
    np.testing.assert_allclose(step_down(delta, draws), written_out(delta, draws), rtol=1e-15)


def test_a_member_alone_has_the_p_value_of_a_family_of_one():
    delta, draws = family(1, 7, 299, effect=2)
    alone = [step_down(delta[[j]], draws[[j]])[0] for j in range(7)]
    np.testing.assert_array_equal(unadjusted_p(delta, draws), alone)
    assert (step_down(delta, draws) >= alone).all()


def test_no_p_value_is_zero_and_none_is_above_one():
    delta, draws = family(2, 5, 99, effect=50)
    p = step_down(delta, draws)
    assert p[:2] == pytest.approx(1 / 100)
    assert ((p > 0) & (p <= 1)).all()


def test_members_that_are_undefined_change_nothing_for_the_others():
    delta, draws = family(3, 6, 199, effect=2)
    padded = np.vstack([draws, np.full((2, 199), np.nan)])
    p = step_down([*delta, np.nan, 0.1], padded)
    np.testing.assert_array_equal(p[:6], step_down(delta, draws))
    assert np.isnan(p[6:]).all()
    holes = draws.copy()
    holes[0, :20] = np.nan  # of one member: it stays in, on the draws that it has
    assert np.isfinite(step_down(delta, holes)).all()


def test_draws_that_do_not_vary_prove_nothing():
    """As with one image: every resample is the sample."""
    p = step_down([0.0, 0.3], np.array([[0.0] * 50, [0.3] * 50]))
    assert p[0] == 1
    assert np.isnan(p[1])


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        step_down([0.0, 1.0], np.zeros((3, 9)))


@pytest.mark.parametrize("members", [1, 20, 280])
def test_a_family_without_effects_is_rejected_in_five_percent_of_studies(members):
    studies = 300
    false = sum((step_down(*family(seed, members, 499)) <= 0.05).any() for seed in range(studies))
    assert false / studies <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)
    if members == 1:
        assert false / studies >= 0.05 - 3 * np.sqrt(0.05 * 0.95 / studies)


def false_alarms(images, studies=2000, *, adjusted=True):
    """Return the share of studies without an effect that a test at 5 % calls significant."""
    rng = np.random.default_rng(1)
    change = rng.normal(size=(studies, images))  # mean difference of each image
    weights = image_weights(images, 1000, seed=0)
    draws = change @ weights / images
    p = unadjusted_p(change.mean(axis=1), draws, images if adjusted else None)
    return (p <= 0.05).mean()


def test_the_fewest_images_that_are_tested_keep_the_level_by_student_s_t_alone():
    assert 0.03 < false_alarms(FEWEST_IMAGES) < 0.065
    assert false_alarms(FEWEST_IMAGES // 2, adjusted=False) > 0.08


def test_statistics_that_no_float_can_tell_from_certainty_have_the_smallest_p():
    delta, draws = family(2, 5, 99, effect=50)
    delta[0] = 1e6
    assert step_down(delta, draws, 9000)[0] == pytest.approx(1 / 100)
    assert step_down(np.zeros(5), draws, 30) == pytest.approx(1)
