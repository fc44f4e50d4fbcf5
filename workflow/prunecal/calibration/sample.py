"""A sample of rows under many weightings of its clusters (images), from which metrics are computed.

A weighting is one column of whole numbers, one per cluster: a bootstrap resample says how often
each image was drawn, a column of ones gives the plain metric. What several metrics need is computed
once, when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prunecal.calibration._checks import checked, checked_bins
from prunecal.calibration.bins import BinSums, bin_index, bin_sums, gap_ece
from prunecal.calibration.cox import cox_calibration
from prunecal.calibration.crossfit import Splits, cross_fitted_ece, temperatures
from prunecal.calibration.debiased import BinTables, debiased_ece, unbiased_miscalibration
from prunecal.calibration.ranked import RANKED, Order, ranked_metrics
from prunecal.calibration.yes_no import YesNo


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows of one cell and subset, and R weightings of their clusters.

    Attributes:
        confidence: float64 [n].
        correct: bool [n].
        cluster: int [n], index of the row's cluster among the rows of `weights`.
        weights: float64 [clusters, R] of whole numbers.
        bins: number of bins of ECE and its relatives.
        columns: values of the rows for further metrics that are means over rows, by the metric's
            key, float64 [n] each.
        groups: selections of rows, bool [n] each: those answered "yes" and "no", of yes/no
            questions alone.
        subsets: the data set's own subsets, bool [n] each, where metrics that are means over
            subsets are asked for.
        folds: int [splits, clusters], the halves of the clusters of each split, for metrics that
            are cross-fitted.
        splits: logits with these halves, for temperature scaling; None without logits.
        recalibrated: confidences after other maps, see `maps.cross_fitted`.
        signs: 1 or -1 per cluster, float64 [clusters, S], see `debiased.ece_if_calibrated`.
        ranks: the metrics of how confidence ranks the rows that are asked for.
    """

    confidence: NDArray
    correct: NDArray
    cluster: NDArray
    weights: NDArray
    bins: int = 15
    columns: Mapping[str, NDArray] = field(default_factory=dict)
    groups: Mapping[str, NDArray] = field(default_factory=dict)
    subsets: Mapping[str, NDArray] = field(default_factory=dict)
    folds: NDArray | None = None
    splits: Splits | None = None
    recalibrated: Mapping[str, NDArray] = field(default_factory=dict)
    signs: NDArray | None = None
    ranks: Collection[str] = tuple(RANKED)

    @cached_property
    def means(self) -> dict[str, NDArray]:
        """Weighted means over rows by the metric's key, float64 [R]; NaN without rows."""
        confidence, correct = self.confidence, self.correct.astype(np.float64)
        columns = {
            "accuracy": correct,
            "mean_confidence": confidence,
            "overconfidence": confidence - correct,
            "brier": (confidence - correct) ** 2,
            **self.columns,
        }
        clusters = len(self.weights)
        rows = (np.ones(len(correct)), *columns.values())
        sums = [np.bincount(self.cluster, values, clusters) for values in rows]
        count, *totals = np.stack(sums) @ self.weights
        with np.errstate(invalid="ignore"):  # a weighting without rows has no mean: NaN
            return {key: total / count for key, total in zip(columns, totals, strict=True)}

    @property
    def rows(self) -> tuple[NDArray, NDArray, NDArray]:
        """Confidence, correctness and cluster of the rows."""
        return self.confidence, self.correct, self.cluster

    @cached_property
    def bin_sums(self) -> BinSums:
        """Sums over the rows of each bin of confidence."""
        return bin_sums(*self.rows, self.weights, self.bins)

    @cached_property
    def bin_tables(self) -> BinTables:
        """Sums over the rows of each bin of confidence and cluster."""
        return BinTables.of(*self.rows, len(self.weights), self.bins)

    @cached_property
    def miscalibration(self) -> NDArray:
        """The unbiased miscalibration of the bins, float64 [R]."""
        return unbiased_miscalibration(self.bin_tables, self.weights)

    @cached_property
    def cox(self) -> tuple[NDArray, NDArray]:
        """Intercept and slope of calibration, float64 [R] each."""
        return cox_calibration(*self.rows, self.weights)

    @cached_property
    def answers(self) -> dict[str, YesNo]:
        """Counts of answers to yes/no questions of all rows, "", and of each subset."""
        if "yes" not in self.groups:
            return {}
        yes, everywhere = self.groups["yes"], np.ones(len(self.correct), dtype=bool)
        return {
            name: YesNo.of(yes[rows], self.correct[rows], self.cluster[rows], self.weights)
            for name, rows in {"": everywhere, **self.subsets}.items()
        }

    @cached_property
    def ranked(self) -> dict[str, NDArray]:
        """Metrics of how confidence ranks the rows, by key, float64 [R]."""
        return ranked_metrics(Order(*self.rows, len(self.weights)), self.weights, self.ranks)

    @cached_property
    def temperatures(self) -> NDArray:
        """The temperatures that fit each half of each split, float64 [splits, 2, R]."""
        splits = self._with_logits()
        return temperatures(splits.slope, self.cluster, splits.halves)

    def ece_at(self, fitted: NDArray) -> NDArray:
        """Return the debiased ECE of each half at the temperature of the other, mean over splits.

        Args:
            fitted: as `temperatures`, of this sample or of another cell.
        """
        splits = self._with_logits()
        rows = splits.table, self.correct, self.cluster
        values = [
            cross_fitted_ece(*rows, splits.halves, split, pair, self.bins)
            for split, pair in enumerate(fitted)
        ]
        return np.mean(values, axis=0)

    def ece_after(self, name: str) -> NDArray | None:
        """Return the debiased ECE after a map of `recalibrated`, float64 [R], mean over splits.

        The maps stay as they were fitted to the sample; None if there is none of that name.
        """
        if name not in self.recalibrated:
            return None
        rest = self.correct, self.cluster, self.weights, self.bins
        values = [
            debiased_ece(confidence, *rest)
            if np.isfinite(confidence).all()
            else np.full(self.weights.shape[1], np.nan)
            for confidence in self.recalibrated[name]
        ]
        return np.mean(values, axis=0)

    def confidence_at(self, fitted: NDArray) -> NDArray:
        """Return the confidences of each half at the other's temperature, float64 [splits, n].

        Args:
            fitted: float64 [splits, 2], see `temperatures`.
        """
        splits = self._with_logits()
        table = splits.table - splits.table.max(axis=1, keepdims=True)
        result = np.empty((len(fitted), len(table)))
        for out, fold, pair in zip(result, splits.halves.folds, fitted, strict=True):
            out[:] = 1 / np.exp(table / pair[1 - fold[self.cluster], None]).sum(axis=1)
        return result

    def _with_logits(self) -> Splits:
        if self.splits is None:
            raise ValueError("temperature scaling needs a sample with logits")
        return self.splits

    def ece_of(self, group: str) -> NDArray | None:
        """Return the ECE of one of the groups, float64 [R]; None if there is none of that name."""
        return self.ece_in(self.bins, self.groups[group]) if group in self.groups else None

    def ece_in(self, bins: int, rows: NDArray | slice = slice(None)) -> NDArray:
        """Return the ECE in a number of bins, float64 [R]: for it alone, a bin's gap is enough.

        Args:
            bins: number of equal-width bins.
            rows: bool [n], the rows that count, by default all.
        """
        confidence, cluster = self.confidence[rows], self.cluster[rows]
        clusters = len(self.weights)
        cell = bin_index(confidence, bins) * clusters + cluster
        gap = np.bincount(cell, confidence - self.correct[rows], bins * clusters)
        count = np.bincount(cluster, minlength=clusters) @ self.weights
        return gap_ece(gap.reshape(bins, clusters) @ self.weights, count)


def plain(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> Sample:
    """Return a sample whose rows all count once.

    Raises:
        ValueError: see `_checks.checked` and `_checks.checked_bins`.
    """
    confidence, correct = checked(confidence, correct)
    cluster = np.zeros(len(confidence), dtype=np.intp)
    return Sample(confidence, correct, cluster, np.ones((1, 1)), checked_bins(bins))
