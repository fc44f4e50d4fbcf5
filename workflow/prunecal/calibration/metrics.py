"""How each metric of the catalogue is computed: functions of a sample, by the metric's key.

The public functions of `prunecal.calibration` are these on rows that all count once. A metric's
name, unit and definition are in the catalogue, so that an edit of a label recomputes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from prunecal.calibration.constants import BIN_COUNTS, READ, READOUTS
from prunecal.calibration.debiased import (
    cross_fitted_signs,
    debiased_ace,
    debiased_ece,
    ece_if_calibrated,
)
from prunecal.calibration.equal_mass import adaptive_calibration_errors
from prunecal.calibration.ranked import RANKED
from prunecal.calibration.recalibration import LIMITS
from prunecal.calibration.sample import Sample
from prunecal.calibration.smooth import smooth_calibration_errors

ROUNDING = 1e-6  # of log T at a limit
Compute = Callable[[Sample], NDArray | None]  # float64 [R]; None where it does not apply


def _binned(sample: Sample, name: str) -> NDArray:
    return getattr(sample.bin_sums, name)()


def _ranked(sample: Sample, key: str) -> NDArray:
    return sample.ranked[key]


def _yes_no(sample: Sample, name: str) -> NDArray | None:
    """Return precision, recall or F1 of the answers to yes/no questions."""
    return getattr(sample.answers[""], name)() if sample.answers else None


def _over_subsets(sample: Sample, name: str) -> NDArray | None:
    """Return the mean of a metric over the data set's subsets; NaN in a sample of one of them."""
    if not sample.answers:
        return None
    values = [getattr(sample.answers[subset], name)() for subset in sample.subsets]
    return np.mean(values, axis=0) if values else np.full(sample.weights.shape[1], np.nan)


def _debiased(sample: Sample, bins: int) -> NDArray:
    return debiased_ece(*sample.rows, sample.weights, bins)


def _log_temperature(sample: Sample) -> NDArray | None:
    """Return the mean of log T over splits and halves; NaN where one ends at a limit."""
    if sample.splits is None:
        return None
    log = np.log(sample.temperatures)
    inside = (np.abs(log - np.log(LIMITS).reshape(2, 1, 1, 1)) > ROUNDING).all(axis=0)
    return np.where(inside, log, np.nan).mean(axis=(0, 1))


def _temperature(sample: Sample) -> NDArray | None:
    log = _log_temperature(sample)
    return None if log is None else np.exp(log)


def _brier_temperature(sample: Sample) -> NDArray | None:
    """Return the Brier score after temperature scaling; temperatures stay those of the sample."""
    if sample.splits is None:
        return None
    scaled = sample.confidence_at(sample.temperatures[..., 0])
    error = ((scaled - sample.correct) ** 2).mean(axis=0)
    return replace(sample, columns={"error": error}).means["error"]


def _discrimination(sample: Sample) -> NDArray:
    uncertainty = sample.bin_sums.brier_uncertainty()
    return sample.miscalibration + uncertainty - sample.means["brier"]


def _corp_miscalibration(sample: Sample) -> NDArray | None:
    if "brier_isotonic" not in sample.columns:
        return None
    return sample.means["brier"] - sample.means["brier_isotonic"]


def _corp_discrimination(sample: Sample) -> NDArray | None:
    if "brier_isotonic" not in sample.columns:
        return None
    return sample.bin_sums.brier_uncertainty() - sample.means["brier_isotonic"]


def _cross_fitted(sample: Sample) -> NDArray | None:
    if sample.folds is None:
        return None
    return cross_fitted_signs(sample.bin_tables, sample.folds, sample.weights)


def _if_calibrated(sample: Sample) -> NDArray | None:
    """Return the mean over random signs, then the ECE under each."""
    if sample.signs is None:
        return None
    replicates = ece_if_calibrated(sample.bin_tables, sample.signs)
    return np.concatenate([[replicates.mean()], replicates])


def _ece_temperature(sample: Sample) -> NDArray | None:
    return None if sample.splits is None else sample.ece_at(sample.temperatures)


def _ece_temperature_transfer(sample: Sample) -> NDArray | None:
    if sample.splits is None or sample.splits.transferred is None:
        return None
    return sample.ece_at(sample.splits.transferred)


BINNED = (
    "ece", "ece_over", "ece_under", "mce", "brier_reliability", "brier_resolution",
    "brier_uncertainty",
)  # fmt: skip
YES_NO = ("f1", "precision", "recall")
METRICS: dict[str, Compute] = {  # all that are not means over rows, see `Sample.means`
    **{key: partial(_binned, name=key) for key in BINNED},
    "ece_yes": partial(Sample.ece_of, group="yes"),
    "ece_no": partial(Sample.ece_of, group="no"),
    **{key: partial(_yes_no, name=key) for key in YES_NO},
    **{f"{key}_over_subsets": partial(_over_subsets, name=key) for key in YES_NO},
    **{key: partial(_ranked, key=key) for key in RANKED},
    "cox_intercept": lambda sample: sample.cox[0],
    "cox_slope": lambda sample: sample.cox[1],
    "brier_miscalibration": lambda sample: sample.miscalibration,
    "brier_discrimination": _discrimination,
    "corp_miscalibration": _corp_miscalibration,
    "corp_discrimination": _corp_discrimination,
    "ece_debiased": lambda sample: debiased_ece(*sample.rows, sample.weights, sample.bins),
}
COSTLY: dict[str, Compute] = {  # the study computes them on its first 1,000 resamples
    **{f"ece_{bins}_bins": partial(Sample.ece_in, bins=bins) for bins in BIN_COUNTS},
    "ace": lambda sample: adaptive_calibration_errors(*sample.rows, sample.weights, sample.bins),
    "log_temperature": _log_temperature,
    "temperature": _temperature,
    "ece_temperature": _ece_temperature,
    "ece_temperature_transfer": _ece_temperature_transfer,
    "brier_temperature": _brier_temperature,
    "ece_if_calibrated": _if_calibrated,
}
PRIMARY: dict[str, Compute] = {  # resampled over all questions alone, see `compute_all`
    **{f"ece_{bins}_bins_debiased": partial(_debiased, bins=bins) for bins in BIN_COUNTS},
    "ace_debiased": lambda sample: debiased_ace(*sample.rows, sample.weights, sample.bins),
    "ece_isotonic": partial(Sample.ece_after, name="isotonic"),
    "ece_histogram": partial(Sample.ece_after, name="histogram"),
    "ece_cross_fitted": _cross_fitted,
    "smece": lambda sample: smooth_calibration_errors(*sample.rows, sample.weights),
}


def compute(key: str, sample: Sample) -> NDArray | None:
    """Return a metric under each weighting, float64 [R]; None where the sample does not have it."""
    function = (METRICS | COSTLY | PRIMARY).get(key)
    return sample.means.get(key) if function is None else function(sample)


def compute_read(sample: Sample, readout: str) -> dict[str, NDArray]:
    """Return the metrics of a sample that another readout gave, by its keys, float64 [R]."""
    sample = replace(sample, ranks=[key for key in RANKED if key in READ])
    keys = [key for key in READ if key != "accuracy" or READOUTS[readout].own_prediction]
    values = {f"{key}_{readout}": compute(key, sample) for key in keys}
    return {key: value for key, value in values.items() if value is not None}


def compute_all(sample: Sample, few: Sample, *, primary: bool = True) -> dict[str, NDArray]:
    """Return every metric by its key, float64 [R], the costly ones [r].

    Args:
        sample: rows under all R weightings, the first of which is the sample itself.
        few: the same rows under the first r of them.
        primary: whether the metrics of `PRIMARY` are resampled; else their resamples are NaN.
    """
    values: dict[str, NDArray | None] = dict(sample.means)
    values |= {key: function(sample) for key, function in METRICS.items()}
    values |= {key: function(few) for key, function in COSTLY.items()}
    resampled = few if primary else replace(few, weights=few.weights[:, :1])
    for key, function in PRIMARY.items():
        value = function(resampled)
        if value is not None:
            padding = np.full(few.weights.shape[1] - len(value), np.nan)
            values[key] = np.concatenate([value, padding])
    return {key: value for key, value in values.items() if value is not None}
