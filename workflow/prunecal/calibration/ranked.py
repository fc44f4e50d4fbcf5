"""Rows in order of confidence, ties as groups, for many weightings of the rows at once.

Everything that depends on the order of confidences (selective risk, AUROC) is a
function of how many rows, and how many errors, stand before each group of tied rows. Weights are
whole numbers per cluster: a row of weight w stands for w copies of it, so that a bootstrap resample
is one column of weights and the plain metric is the case of a single column of ones.
"""

from collections.abc import Callable
from functools import cached_property
from operator import attrgetter, methodcaller

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from prunecal.calibration.constants import COVERAGE, RISK

CHUNK = 250  # weightings at a time: tables of [rows, weightings] are large
ROUNDING = 1e-9  # whole numbers computed in float64 may miss by this much


class Order:
    """Groups of equally confident rows, most confident first, before any weighting.

    Args:
        confidence: float64 [n].
        correct: bool [n].
        cluster: int [n], the row of the weights that weighs each row.
        clusters: number of rows of the weights.
    """

    def __init__(self, confidence: NDArray, correct: NDArray, cluster: NDArray, clusters: int):
        _, group = np.unique(-confidence, return_inverse=True)
        wrong = ~correct
        erring = np.unique(group[wrong])  # the groups that hold an error: only they bend the curves
        # segment 2j + 1 is the j-th such group, segment 2j all that stands between it and the last
        segment = np.searchsorted(erring, group, "left") + np.searchsorted(erring, group, "right")
        self._sizes = _counts(segment, cluster, (2 * len(erring) + 1, clusters))
        order = np.searchsorted(erring, group[wrong])
        self._errors = _counts(order, cluster[wrong], (len(erring), clusters))

    def under(self, weights: NDArray) -> "Ranked":
        """Return the groups under weightings, float64 [clusters, R] of whole numbers."""
        return Ranked(self._sizes @ weights, self._errors @ weights)


def ranked(confidence: NDArray, correct: NDArray) -> "Ranked":
    """Return the groups of rows that all count once."""
    cluster = np.zeros(len(confidence), dtype=np.intp)
    return Order(confidence, correct, cluster, 1).under(np.ones((1, 1)))


class Ranked:
    """Groups of equally confident rows, most confident first, under R weightings.

    Args:
        sizes: rows of the segments between groups with an error and of these groups, in turn,
            [2 groups + 1, R].
        errors: errors of these groups, [groups, R].
    """

    def __init__(self, sizes: NDArray, errors: NDArray):
        ends = running_sum(sizes)
        self.rows = ends[-1]  # [R]
        self.size, self.before, self.after = sizes[1::2], ends[:-1:2], ends[1::2]
        self.errors = errors
        counted = running_sum(self.errors)
        self.errors_before = counted - self.errors
        self.total_errors = self.errors.sum(axis=0)  # [R]

    @cached_property
    def share(self) -> NDArray:
        """Share of errors among the rows of each group that holds one."""
        return self.errors / np.maximum(self.size, 1)

    @cached_property
    def _harmonic(self) -> NDArray:
        """Harmonic numbers H(0) … H(largest number of rows)."""
        return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, self.rows.max() + 1))])

    def errors_up_to(self, k: NDArray) -> NDArray:
        """Return the expected number of errors among the k most confident rows, [R]."""
        taken = np.clip(k - self.before, 0, self.size)
        return (self.share * taken).sum(axis=0)

    @cached_property
    def aurc(self) -> NDArray:
        """The mean over k = 1 … n of the expected error rate of the k most confident.

        Within a group of m rows with e errors that follows n0 rows with e0 errors, the expected
        risks e0 + (k - n0) e / m, each over k, sum to e + (e0 - n0 e / m) (H(n0 + m) - H(n0)) with
        the harmonic numbers H; over all groups the terms in e0 telescope.
        """
        harmonic = self._harmonic
        upper, lower = harmonic[self.after.astype(np.intp)], harmonic[self.before.astype(np.intp)]
        last = harmonic[self.rows.astype(np.intp)]
        area = self.errors * (last - upper) - self.share * self.before * (upper - lower)
        return ratio(self.total_errors + area.sum(axis=0), self.rows)

    @cached_property
    def optimal_aurc(self) -> NDArray:
        """The AURC at the same accuracy if every error stood behind every right answer."""
        right = self.rows - self.total_errors
        upper, lower = self.rows.astype(np.intp), right.astype(np.intp)
        tail = self._harmonic[upper] - self._harmonic[lower]
        return ratio(self.total_errors - right * tail, self.rows)

    @property
    def e_aurc(self) -> NDArray:
        """The excess AURC: AURC minus that of a perfect ranking at the same accuracy."""
        return self.aurc - self.optimal_aurc

    @cached_property
    def _misordered(self) -> NDArray:
        """The number of (error, right) pairs with the error on top, ties as one half."""
        right_before = self.before - self.errors_before
        right_tied = self.size - self.errors
        right_behind = (self.rows - self.total_errors) - right_before - right_tied / 2
        return (self.errors * right_behind).sum(axis=0)

    @property
    def auroc(self) -> NDArray:
        """The share of (right, error) pairs in which the right answer is more confident."""
        pairs = self.total_errors * (self.rows - self.total_errors)
        return 1 - ratio(self._misordered, pairs)

    @property
    def augrc(self) -> NDArray:
        """The mean over k = 1 … n of (expected errors among the k most confident) / n.

        An error at rank k counts n - k + 1 times. Among the errors themselves the order does not
        matter (1 + … + E); what does is how many right answers stand behind each of them.
        """
        errors = self.total_errors
        return ratio(self._misordered + errors * (errors + 1) / 2, self.rows**2)

    def risk_at_coverage(self, coverage: float) -> NDArray:
        """Return the expected error rate among the ceil(coverage * n) most confident rows."""
        k = np.ceil(coverage * self.rows - ROUNDING)
        return ratio(self.errors_up_to(k), k)

    def coverage_at_risk(self, risk: float) -> NDArray:
        """Return the largest k / n whose k most confident rows have at most this expected risk."""
        everything = self.total_errors <= risk * self.rows + ROUNDING
        if not len(self.size):
            return ratio(self.rows, self.rows)
        # up to here the limit is met, and with the last group that starts so it is crossed
        met = self.errors_before <= risk * self.before + ROUNDING
        last = len(met) - 1 - np.argmax(met[::-1], axis=0), np.arange(len(self.rows))
        room = risk * self.before[last] - self.errors_before[last]
        # within the group each row adds its share of errors and `risk` of room
        lack = self.errors[last] - risk * self.size[last]
        extra = np.floor(room * self.size[last] / np.where(lack > 0, lack, 1) + ROUNDING)
        extra = np.where(lack > 0, np.clip(extra, 0, self.size[last]), self.size[last])
        best = np.where(met.any(axis=0), self.before[last] + extra, 0)
        return ratio(np.where(everything, self.rows, best), self.rows)


RANKED: dict[str, Callable[[Ranked], NDArray]] = {  # by the metric's key
    "auroc": attrgetter("auroc"),
    "aurc": attrgetter("aurc"),
    "e_aurc": attrgetter("e_aurc"),
    "augrc": attrgetter("augrc"),
    "risk_at_80_coverage": methodcaller("risk_at_coverage", COVERAGE),
    "coverage_at_5_risk": methodcaller("coverage_at_risk", RISK),
}


def ranked_metrics(order: Order, weights: NDArray) -> dict[str, NDArray]:
    """Return how well confidence ranks right answers above errors, float64 [R] by metric."""
    parts = []
    for start in range(0, weights.shape[1], CHUNK):
        groups = order.under(np.ascontiguousarray(weights[:, start : start + CHUNK]))
        parts.append({key: measure(groups) for key, measure in RANKED.items()})
    return {key: np.concatenate([part[key] for part in parts]) for key in RANKED}


def _counts(index: NDArray, cluster: NDArray, shape: tuple[int, int]) -> sparse.csr_array:
    """Return the number of rows by index and cluster, float64."""
    return sparse.csr_array((np.ones(len(index)), (index, cluster)), shape=shape)


def sum_by(
    index: NDArray, cluster: NDArray, values: NDArray, length: int, weights: NDArray
) -> NDArray:
    """Return the weighted sums of rows' values by index, float64 [length, R]."""
    shape = (length, len(weights))
    return sparse.csr_array((values, (index, cluster)), shape=shape) @ weights


def ratio(numerator: NDArray, denominator: NDArray) -> NDArray:
    """Divide, giving NaN where there is nothing to divide by."""
    undefined = np.full(np.shape(numerator), np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)


def running_sum(table: NDArray) -> NDArray:
    """Return cumulative sums down the rows of a [rows, R] table.

    One addition per row over all R columns: three times as fast as `numpy.cumsum(axis=0)`.
    """
    total = np.empty_like(table)
    total[:1] = table[:1]
    for above, row, out in zip(total[:-1], table[1:], total[1:], strict=True):
        np.add(above, row, out=out)
    return total
