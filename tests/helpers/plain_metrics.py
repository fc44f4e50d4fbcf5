"""Metrics of confidence and correctness as functions of two arrays, by their keys."""

import functools

from prunecal import calibration

PLAIN = {
    "accuracy": lambda _, correct: correct.mean(),
    "mean_confidence": lambda confidence, _: confidence.mean(),
    "overconfidence": lambda confidence, correct: confidence.mean() - correct.mean(),
    "brier": calibration.brier_score,
    "ece": calibration.expected_calibration_error,
    "ece_10_bins": functools.partial(calibration.expected_calibration_error, bins=10),
    "mce": calibration.maximum_calibration_error,
    "ace": calibration.adaptive_calibration_error,
    "smece": calibration.smooth_calibration_error,
    "auroc": calibration.auroc,
    "aurc": calibration.aurc,
    "e_aurc": calibration.e_aurc,
    "augrc": calibration.augrc,
    "risk_at_80_coverage": calibration.risk_at_coverage,
    "coverage_at_5_risk": calibration.coverage_at_risk,
}
