"""All metrics of one sample of rows, for many weightings of its clusters (images) at once.

A weighting is one column of whole numbers, one per cluster: a bootstrap resample says how often
each image was drawn, a column of ones gives the plain metric. What is a mean over rows, or a sum
over bins of such means, needs only sums per cluster and one matrix product; what depends on the
order of confidences goes through `ranked`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from prunecal.calibration.binned import bin_index
from prunecal.calibration.equal_mass import adaptive_calibration_errors
from prunecal.calibration.ranked import Order, ratio
from prunecal.calibration.smooth import smooth_calibration_errors

CURVE_BINS = (5, 10, 20, 30, 50)
COVERAGE, RISK = 0.8, 0.05
CHUNK = 250  # weightings at a time where [rows, weightings] tables are made


class Sample(NamedTuple):
    """Rows of one cell and subset.

    Attributes:
        confidence: float64 [n].
        correct: bool [n].
        cluster: int [n], index of the row's cluster among the rows of the weights.
        means: further columns, float64 [n] each, of which the weighted mean is wanted.
        groups: further selections of rows, bool [n] each, of which the ECE is wanted.
    """

    confidence: NDArray
    correct: NDArray
    cluster: NDArray
    means: Mapping[str, NDArray]
    groups: Mapping[str, NDArray]


class BinSums(NamedTuple):
    """Sums over the rows of each bin, [bins, R]."""

    count: NDArray
    confidence: NDArray
    correct: NDArray

    @property
    def gap(self) -> NDArray:
        """Return the sum of (confidence - correct) in each bin."""
        return self.confidence - self.correct


def mean_metrics(sample: Sample, weights: NDArray, bins: int) -> dict[str, NDArray]:
    """Return everything that is made of means over rows, float64 [R] per metric."""
    confidence, correct = sample.confidence, sample.correct.astype(np.float64)
    columns = {
        "accuracy": correct,
        "mean_confidence": confidence,
        "overconfidence": confidence - correct,
        "brier": (confidence - correct) ** 2,
        **sample.means,
    }
    totals = cluster_sums(np.stack([np.ones(len(correct)), *columns.values()]), sample, weights)
    with np.errstate(invalid="ignore"):  # a weighting without rows has no mean: NaN
        metrics = {name: total / totals[0] for name, total in zip(columns, totals[1:], strict=True)}
    sums = bin_sums(sample, weights, bins)
    metrics |= {"ece": ece(sums), "mce": _mce(sums), "ece_debiased": debiased_ece(sums)}
    rows = _rows(sums)
    metrics["ece_over"] = np.maximum(sums.gap, 0).sum(axis=0) / rows
    metrics["ece_under"] = np.maximum(-sums.gap, 0).sum(axis=0) / rows
    metrics |= brier_decomposition(sums)
    for count in CURVE_BINS:
        metrics[f"ece_{count}_bins"] = binned_ece(sample, weights, count)
    for name, chosen in sample.groups.items():
        metrics[name] = binned_ece(sample, weights, bins, chosen)
    return metrics


def ranked_metrics(sample: Sample, weights: NDArray) -> dict[str, NDArray]:
    """Return how well confidence ranks right answers above errors, float64 [R] per metric."""
    parts = []
    order = Order(sample.confidence, sample.correct, sample.cluster, len(weights))
    for start in range(0, weights.shape[1], CHUNK):
        chunk = np.ascontiguousarray(weights[:, start : start + CHUNK])
        ranked = order.under(chunk)
        area = ranked.aurc()
        parts.append(
            {
                "auroc": ranked.auroc(),
                "aurc": area,
                "e_aurc": area - ranked.optimal_aurc(),
                "augrc": ranked.augrc(),
                "risk_at_80_coverage": ranked.risk_at_coverage(COVERAGE),
                "coverage_at_5_risk": ranked.coverage_at_risk(RISK),
            }
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def equal_mass_metrics(sample: Sample, weights: NDArray, bins: int) -> dict[str, NDArray]:
    """Return the adaptive ECE, float64 [R]."""
    rows = sample.confidence, sample.correct, sample.cluster
    return {"ace": adaptive_calibration_errors(*rows, weights, bins)}


def smooth_metrics(sample: Sample, weights: NDArray) -> dict[str, NDArray]:
    """Return smECE, float64 [R]."""
    found = smooth_calibration_errors(sample.confidence, sample.correct, sample.cluster, weights)
    return {"smece": found}


def cluster_sums(columns: NDArray, sample: Sample, weights: NDArray) -> NDArray:
    """Return the weighted sums over rows of columns [F, n], float64 [F, R]."""
    clusters = len(weights)
    sums = [np.bincount(sample.cluster, column, clusters) for column in columns]
    return np.stack(sums) @ weights


def bin_sums(sample: Sample, weights: NDArray, bins: int) -> BinSums:
    """Return the weighted sums per equal-width bin."""
    clusters = len(weights)
    place = bin_index(sample.confidence, bins) * clusters + sample.cluster
    columns = (None, sample.confidence, sample.correct)
    tables = (np.bincount(place, column, bins * clusters) for column in columns)
    return BinSums(*(table.reshape(bins, clusters) @ weights for table in tables))


def binned_ece(
    sample: Sample, weights: NDArray, bins: int, chosen: NDArray | slice = slice(None)
) -> NDArray:
    """Return the ECE of the chosen rows, float64 [R]: for it alone, a bin's gap is enough."""
    clusters = len(weights)
    confidence, cluster = sample.confidence[chosen], sample.cluster[chosen]
    place = bin_index(confidence, bins) * clusters + cluster
    gap = np.bincount(place, confidence - sample.correct[chosen], bins * clusters)
    rows = np.bincount(cluster, minlength=clusters) @ weights
    return ratio(np.abs(gap.reshape(bins, clusters) @ weights).sum(axis=0), rows)


def ece(sums: BinSums) -> NDArray:
    """Return the expected calibration error, float64 [R]."""
    return np.abs(sums.gap).sum(axis=0) / _rows(sums)


def debiased_ece(sums: BinSums) -> NDArray:
    """Return the ECE less what noise alone adds to it, float64 [R]; it can fall below 0.

    A bin whose accuracy has the standard error s shows |gap| of a folded normal around its true
    gap; the excess of that mean over |gap|, estimated at the observed gap, is taken off (Kumar et
    al., Verified Uncertainty Calibration, arXiv 1909.10155, section 5, here in closed form).
    """
    count = np.maximum(sums.count, 1)
    gap, accuracy = np.abs(sums.gap) / count, sums.correct / count
    error = np.sqrt(np.maximum(accuracy * (1 - accuracy), 0) / np.maximum(count - 1, 1))
    scores = np.divide(gap, error, out=np.full_like(gap, np.inf), where=error > 0)
    folded = error * np.sqrt(2 / np.pi) * np.exp(-(scores**2) / 2) + gap * erf(scores / np.sqrt(2))
    return (sums.count * (2 * gap - folded)).sum(axis=0) / _rows(sums)


def brier_decomposition(sums: BinSums) -> dict[str, NDArray]:
    """Return reliability, resolution and uncertainty over bins (Murphy 1973), float64 [R] each.

    Brier = reliability - resolution + uncertainty up to the spread of confidence within bins.
    """
    rows, count = _rows(sums), np.maximum(sums.count, 1)
    accuracy = sums.correct.sum(axis=0) / rows
    return {
        "brier_reliability": (sums.gap**2 / count).sum(axis=0) / rows,
        "brier_resolution": (sums.count * (sums.correct / count - accuracy) ** 2).sum(axis=0)
        / rows,
        "brier_uncertainty": accuracy * (1 - accuracy),
    }


def _mce(sums: BinSums) -> NDArray:
    largest = (np.abs(sums.gap) / np.maximum(sums.count, 1)).max(axis=0)
    return np.where(sums.count.sum(axis=0) > 0, largest, np.nan)


def _rows(sums: BinSums) -> NDArray:
    """Return the number of rows of each weighting, NaN where there is none."""
    rows = sums.count.sum(axis=0)
    return np.where(rows > 0, rows, np.nan)
