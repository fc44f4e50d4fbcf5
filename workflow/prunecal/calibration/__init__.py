"""Calibration and selective-prediction metrics as pure functions of arrays.

`confidence` is the probability given to the prediction, float [n] in [0, 1]; `correct` says whether
the prediction is right, bool [n]. Bad input is a ValueError. Nothing here imports torch.
"""

from prunecal.calibration.binned import (
    Reliability,
    adaptive_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
    reliability_diagram,
)
from prunecal.calibration.proper import brier_multiclass, brier_score, negative_log_likelihood
from prunecal.calibration.recalibration import temperature
from prunecal.calibration.risk import (
    augrc,
    aurc,
    auroc,
    coverage_at_risk,
    e_aurc,
    risk_at_coverage,
)
from prunecal.calibration.smooth import smooth_calibration_error

__all__ = [
    "Reliability",
    "adaptive_calibration_error",
    "augrc",
    "aurc",
    "auroc",
    "brier_multiclass",
    "brier_score",
    "coverage_at_risk",
    "e_aurc",
    "expected_calibration_error",
    "maximum_calibration_error",
    "negative_log_likelihood",
    "reliability_diagram",
    "risk_at_coverage",
    "smooth_calibration_error",
    "temperature",
]
