"""Slope and intercept of calibration against direct maximisation, and against known truth."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from prunecal.calibration.cox import cox_calibration
from prunecal.statistics import image_weights, interval


def answers(rng, images, slope=1.0, intercept=0.0, each=10):
    """Rows of images whose answers are alike; the model of Cox holds exactly."""
    image = np.repeat(np.arange(images), each)
    margin = np.abs(rng.normal(1.5, 1.2, len(image)) + rng.normal(0, 0.6, images)[image])
    # a shared uniform for a third of an image's rows makes their outcomes alike
    shared = rng.uniform(size=images)[image]
    own = rng.uniform(size=len(image))
    level = np.where(rng.uniform(size=len(image)) < 0.3, shared, own)
    return expit(margin), level < expit(intercept + slope * margin), image


def direct(confidence, correct, weight):
    x = np.log(confidence / (1 - confidence))

    def loss(parameters):
        return weight @ np.logaddexp(
            0, np.where(correct, -1, 1) * (parameters @ [np.ones_like(x), x])
        )

    return minimize(loss, [0.0, 1.0], method="BFGS", options={"gtol": 1e-9}).x


def test_the_fit_is_the_maximum_of_the_likelihood_and_a_resample_one_step_from_it():
    confidence, correct, image = answers(np.random.default_rng(0), 200, slope=0.7, intercept=-0.2)
    drawn = image_weights(200, 12, seed=0)
    weights = np.hstack([np.ones((200, 1)), drawn])
    fitted = np.stack(cox_calibration(confidence, correct, image, weights), axis=1)
    expected = np.stack([direct(confidence, correct, column[image]) for column in weights.T])
    np.testing.assert_allclose(fitted[0], expected[0], atol=1e-4)
    spread = expected[1:].std(axis=0)
    missed = np.abs(fitted - expected) / spread
    assert missed.max() < 0.3
    assert missed.mean() < 0.1


@pytest.mark.parametrize(
    ("confidence", "correct"),
    [
        ([0.6, 0.7, 0.8], [True, True, True]),
        ([0.6, 0.7, 0.8], [False, False, False]),
        ([0.7, 0.7, 0.7], [True, False, True]),
        ([0.6, 0.7, 0.8, 0.9], [False, False, True, True]),  # separated
    ],
)
def test_what_the_answers_do_not_determine_is_undefined(confidence, correct):
    rows = np.array(confidence), np.array(correct)
    fitted = cox_calibration(*rows, np.zeros(len(confidence), dtype=int), np.ones((1, 1)))
    assert np.isnan(fitted).all()


def test_confidences_of_one_are_finite():
    rng = np.random.default_rng(1)
    confidence = np.concatenate([np.ones(50), rng.uniform(0.5, 0.9, 50)])
    correct = rng.uniform(size=100) < 0.8
    fitted = cox_calibration(confidence, correct, np.arange(100), np.ones((100, 1)))
    assert np.isfinite(fitted).all()


def test_intervals_over_images_cover_the_true_slope_and_intercept():
    rng = np.random.default_rng(2)
    weights = np.hstack([np.ones((100, 1)), image_weights(100, 400, seed=1)])
    covered = np.zeros(2)
    for _ in range(200):
        confidence, correct, image = answers(rng, 100, slope=0.7, intercept=-0.2)
        fitted = cox_calibration(confidence, correct, image, weights)
        for index, truth in enumerate((-0.2, 0.7)):
            low, high = interval(fitted[index][1:])
            covered[index] += low <= truth <= high
    assert (covered / 200 >= 0.90).all(), covered
