"""Calibration and selective-prediction metrics as pure functions of arrays.

`confidence` is the probability given to the prediction, float [n] in [0, 1]; `correct` says whether
the prediction is right, bool [n]. Bad input is a ValueError. Nothing here imports torch; numpy and
scipy are imported with the first function that is used, so that the catalogue of metrics stays
light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
_MODULES = ("binned", "proper", "recalibration", "risk", "smooth")


def __getattr__(name: str) -> Any:
    """Import a public function when it is first used (PEP 562)."""
    if name in __all__:
        for module in _MODULES:
            functions = vars(importlib.import_module(f"{__name__}.{module}"))
            if name in functions:
                return functions[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
