"""Rows in order of confidence, ties as groups, for many weightings of the rows at once.

Everything that depends on the order of confidences (selective risk, AUROC) is a
function of how many rows, and how many errors, stand before each group of tied rows. Weights are
whole numbers per cluster: a row of weight w stands for w copies of it, so that a bootstrap resample
is one column of weights and the plain metric is the case of a single column of ones.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection
from functools import cached_property
from itertools import pairwise
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
        # the rows from behind the last such group to the end of the j-th, and those within it
        upto = np.searchsorted(erring, group, "left")
        within = np.searchsorted(erring, group, "right") > upto
        self._rows = _counts(upto, cluster, (len(erring) + 1, clusters))
        self._sizes = _counts(upto[within], cluster[within], (len(erring), clusters))
        self._errors = _counts(upto[wrong], cluster[wrong], (len(erring), clusters))

    def under(self, weights: NDArray) -> "Ranked":
        """Return the groups under weightings, float64 [clusters, R] of whole numbers."""
        return Ranked(self._rows @ weights, self._sizes @ weights, self._errors @ weights)


def ranked(confidence: NDArray, correct: NDArray) -> "Ranked":
    """Return the groups of rows that all count once."""
    cluster = np.zeros(len(confidence), dtype=np.intp)
    return Order(confidence, correct, cluster, 1).under(np.ones((1, 1)))


class Ranked:
    """Groups of equally confident rows, most confident first, under R weightings.

    Args:
        rows: from behind the last group with an error to the end of this one, and in the last
            place those behind all of them, [groups + 1, R].
        sizes: rows of these groups, [groups, R].
        errors: errors of these groups, [groups, R].
    """

    def __init__(self, rows: NDArray, sizes: NDArray, errors: NDArray):
        ends = running_sum(rows)
        self.rows = ends[-1]  # [R]
        self.size, self.after = sizes, ends[:-1]
        self.before = self.after - sizes
        self.errors = errors
        self._counted = running_sum(errors)
        self.total_errors = self._counted[-1] if len(errors) else np.zeros_like(self.rows)  # [R]

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
        groups = len(self.before)
        if len(k) > 1:  # those behind the k rows add nothing
            groups = bisect_left(range(groups), True, key=lambda at: (self.before[at] >= k).all())
        taken = k - self.before[:groups]
        np.clip(taken, 0, self.size[:groups], out=taken)
        taken *= self.share[:groups]
        return taken.sum(axis=0)

    @cached_property
    def aurc(self) -> NDArray:
        """The mean over k = 1 … n of the expected error rate of the k most confident.

        Within a group of m rows with e errors that follows n0 rows with e0 errors, the expected
        risks e0 + (k - n0) e / m, each over k, sum to e + (e0 - n0 e / m) (H(n0 + m) - H(n0)) with
        the harmonic numbers H; over all groups the terms in e0 telescope.
        """
        lower, upper, last = (
            self._harmonic.take(rows.astype(np.intp))
            for rows in (self.before, self.after, self.rows)
        )
        area = last - upper
        area *= self.errors
        bend = self.share * self.before
        bend *= np.subtract(upper, lower, out=upper)
        area -= bend
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
        """The number of (error, right) pairs with the error on top, ties as one half.

        Of the rows before and, by half, in an error's group, the other errors are no such pair;
        every pair of errors is counted so once.
        """
        errors = self.total_errors
        above = np.einsum("ij,ij->j", self.errors, self.before)
        above += np.einsum("ij,ij->j", self.errors, self.after)
        return errors * (self.rows - errors) + (errors**2 - above) / 2

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
        room = risk * self.before[1:]
        room += ROUNDING
        met = self._counted[:-1] <= room
        last = len(met) - np.argmax(met[::-1], axis=0) if len(met) else 0
        last = np.where(met.any(axis=0), last, 0), np.arange(len(self.rows))
        room = risk * self.before[last] - (self._counted[last] - self.errors[last])
        # within the group each row adds its share of errors and `risk` of room
        lack = self.errors[last] - risk * self.size[last]
        extra = np.floor(room * self.size[last] / np.where(lack > 0, lack, 1) + ROUNDING)
        extra = np.where(lack > 0, np.clip(extra, 0, self.size[last]), self.size[last])
        best = self.before[last] + extra
        return ratio(np.where(everything, self.rows, best), self.rows)


RANKED: dict[str, Callable[[Ranked], NDArray]] = {  # by the metric's key
    "auroc": attrgetter("auroc"),
    "aurc": attrgetter("aurc"),
    "e_aurc": attrgetter("e_aurc"),
    "augrc": attrgetter("augrc"),
    "risk_at_80_coverage": methodcaller("risk_at_coverage", COVERAGE),
    "coverage_at_5_risk": methodcaller("coverage_at_risk", RISK),
}


def ranked_metrics(
    order: Order, weights: NDArray, keys: Collection[str] = RANKED
) -> dict[str, NDArray]:
    """Return how well confidence ranks right answers above errors, float64 [R] by metric."""
    parts, measures = [], {key: RANKED[key] for key in keys}
    for start in range(0, weights.shape[1], CHUNK):
        groups = order.under(np.ascontiguousarray(weights[:, start : start + CHUNK]))
        parts.append({key: measure(groups) for key, measure in measures.items()})
    return {key: np.concatenate([part[key] for part in parts]) for key in measures}


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
    total = table.copy()
    for above, row in pairwise(total):
        np.add(above, row, out=row)
    return total
