"""Made-up answers whose calibration curve is known exactly."""

import numpy as np
from scipy.special import expit, ndtr


def studies(rng, count, images, temperature, each=12):
    """Yield rows of images whose answers are alike; the calibration curve is known exactly."""
    image = np.repeat(np.arange(images), each)
    for _ in range(count):
        alike = rng.normal(size=(2, images))[:, image]
        own = rng.normal(size=(2, len(image)))
        margin = np.abs(1.8 + 1.4 * (np.sqrt(0.3) * alike[0] + np.sqrt(0.7) * own[0]))
        right = ndtr(0.5 * alike[1] + np.sqrt(0.75) * own[1]) < expit(margin / temperature)
        yield image, expit(margin), right


def true_ece(temperature):
    rng = np.random.default_rng(9)
    margin = np.abs(1.8 + 1.4 * rng.normal(size=2_000_000))
    confidence, curve = expit(margin), expit(margin / temperature)
    place = np.minimum((confidence * 15).astype(int), 14)
    return np.abs(np.bincount(place, confidence - curve, 15)).sum() / len(margin)
