"""Is a cell calibrated at all? A test, a lower bound of its ECE, and the shape of what is off."""

import numpy as np
from numpy.typing import NDArray

from prunecal.calibration.constants import LEVEL
from prunecal.statistics.bootstrap import interval
from prunecal.statistics.scores import Scores
from prunecal.statistics.significance import FEWEST_IMAGES, excess_p
from prunecal.statistics.tables import Rows

NULL = "ece_if_calibrated"
NEEDED = (NULL, "ece_cross_fitted", "cox_slope", "cox_intercept")
COLUMNS = [
    "model", "dataset", "strategy", "family", "budget", "ece", "ece_if_calibrated", "p",
    "p_adjusted", "ece_at_least", "slope", "slope_low", "slope_high", "intercept",
    "intercept_low", "intercept_high", "bins_filled", "largest_bin_share", "evidence",
]  # fmt: skip


def may_be_calibrated(scores: Scores, level: float) -> NDArray:
    """Return where the test of calibration alone does not reject, bool [cells, subsets].

    False everywhere for score files without the replicates of a calibrated model.
    """
    shape = len(scores.cells), len(scores.subsets)
    if NULL not in scores.facts["metrics"]:
        return np.zeros(shape, dtype=bool)
    ece, null = scores.value("ece"), scores.draws(NULL)
    alone, _ = excess_p(ece.ravel(), null.reshape(ece.size, -1))
    return alone.reshape(shape) > 1 - level


def calibration_rows(scores: Scores, level: float) -> Rows:
    """Return a row per cell, over all questions.

    `p` is that of the cell being calibrated: the share of calibrated models whose ECE on these
    images is as large (see `debiased.ece_if_calibrated`); `p_adjusted` that within the family of
    all cells of a model on a data set. `ece_at_least` is the lower end of the interval of the
    cross-fitted ECE. Nothing for score files that lack one of these metrics.

    Args:
        scores: a model on a data set.
        level: of the intervals.
    """
    if not set(NEEDED) <= set(scores.facts["metrics"]):
        return []
    at, images = scores.pooled, scores.subsets[scores.pooled]["n_images"]
    ece = scores.value("ece")[:, at]
    floor = scores.value(NULL)[:, at]
    alone, adjusted = excess_p(ece, scores.draws(NULL)[:, at])
    bound = interval(scores.draws("ece_cross_fitted")[:, at], level)[0].clip(min=0.0)
    use = scores.bin_use()
    rows = []
    for index, cell in enumerate(scores.cells):
        tested = images >= FEWEST_IMAGES
        row = scores.task | {key: cell[key] for key in ("strategy", "family", "budget")}
        row |= {"ece": ece[index], "ece_if_calibrated": floor[index]}
        row |= {"p": alone[index] if tested else None}
        row |= {"p_adjusted": adjusted[index] if tested else None}
        row |= {"ece_at_least": bound[index] if images > 1 else None}
        for name in ("slope", "intercept"):
            value = scores.value(f"cox_{name}")[index, at]
            low, high = interval(scores.draws(f"cox_{name}")[index, at], level)
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        row |= {name: table[index, at].item() for name, table in use.items()}
        row |= {"evidence": evidence(row["p_adjusted"], row["ece_at_least"], images)}
        rows.append(row)
    return rows


def evidence(p_adjusted: float | None, bound: float | None, images: int) -> str:
    """Say what the test and the lower bound show of a cell's calibration."""
    if p_adjusted is None or bound is None:
        return f"cannot be told from {images} images"
    if p_adjusted > LEVEL:
        return "no evidence against calibration"
    return f"miscalibrated: ECE at least {bound:.3f}" if bound >= 0.0005 else "miscalibrated"
