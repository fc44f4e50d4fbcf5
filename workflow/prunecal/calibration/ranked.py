"""Rows in order of confidence, ties as groups, for many weightings of the rows at once.

Everything that depends on the order of confidences (selective risk, AUROC, equal-mass bins) is a
function of how many rows, and how many errors, stand before each group of tied rows. Weights are
whole numbers per cluster: a row of weight w stands for w copies of it, so that a bootstrap resample
is one column of weights and the plain metric is the case of a single column of ones.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

ROUNDING = 1e-9  # whole numbers computed in float64 may miss by this much


class Ranked:
    """Groups of equally confident rows, most confident first, under R weightings.

    Args:
        confidence: float64 [n].
        correct: bool [n].
        cluster: int [n], the row of `weights` that weighs each row; by default all are alike.
        weights: float64 [clusters, R], whole numbers.
    """

    def __init__(
        self,
        confidence: NDArray,
        correct: NDArray,
        cluster: NDArray | None = None,
        weights: NDArray | None = None,
    ):
        if cluster is None or weights is None:
            cluster, weights = np.zeros(len(confidence), dtype=np.intp), np.ones((1, 1))
        _, group = np.unique(-confidence, return_inverse=True)
        shape = (int(group.max()) + 1, len(weights))

        def per_group(values: NDArray, rows: NDArray | slice = slice(None)) -> sparse.csr_array:
            return sparse.csr_array((values[rows], (group[rows], cluster[rows])), shape=shape)

        wrong = ~correct
        has_error = np.unique(group[wrong])
        self._residual = per_group(confidence - correct)
        self._weights = weights
        size = per_group(np.ones(len(group))) @ weights
        self._after = _running_sum(size)  # [groups, R]: rows up to and with the group
        self.rows = self._after[-1]  # [R]
        # the groups that hold an error; the others never change the number of errors
        self.size = size[has_error]
        self.after = self._after[has_error]
        self.before = self.after - self.size
        self.errors = per_group(np.ones(len(group)), wrong)[has_error] @ weights
        self.errors_before = _running_sum(self.errors) - self.errors
        self.total_errors = self.errors.sum(axis=0)  # [R]

    @cached_property
    def share(self) -> NDArray:
        """Share of errors among the rows of each group that holds one."""
        return self.errors / np.maximum(self.size, 1)

    def errors_up_to(self, k: NDArray) -> NDArray:
        """Return the expected number of errors among the k most confident rows, [R]."""
        taken = np.clip(k - self.before, 0, self.size)
        return (self.share * taken).sum(axis=0)

    def aurc(self) -> NDArray:
        """Return the mean over k = 1 … n of the expected error rate of the k most confident.

        Within a group of m rows with e errors that follows n0 rows with e0 errors, the expected
        risks e0 + (k - n0) e / m, each over k, sum to e + (e0 - n0 e / m) (H(n0 + m) - H(n0)) with
        the harmonic numbers H; over all groups the terms in e0 telescope.
        """
        harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, self.rows.max() + 1))])
        upper, lower = harmonic[self.after.astype(np.intp)], harmonic[self.before.astype(np.intp)]
        last = harmonic[self.rows.astype(np.intp)]
        area = self.errors * (last - upper) - self.share * self.before * (upper - lower)
        return _ratio(self.total_errors + area.sum(axis=0), self.rows)

    def optimal_aurc(self) -> NDArray:
        """Return the AURC at the same accuracy if every error stood behind every right answer."""
        harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, self.rows.max() + 1))])
        right = self.rows - self.total_errors
        tail = harmonic[self.rows.astype(np.intp)] - harmonic[right.astype(np.intp)]
        return _ratio(self.total_errors - right * tail, self.rows)

    def _misordered(self) -> NDArray:
        """Return the number of (error, right) pairs with the error on top, ties as one half."""
        right_before = self.before - self.errors_before
        right_tied = self.size - self.errors
        right_behind = (self.rows - self.total_errors) - right_before - right_tied / 2
        return (self.errors * right_behind).sum(axis=0)

    def auroc(self) -> NDArray:
        """Return the share of (right, error) pairs in which the right answer is more confident."""
        pairs = self.total_errors * (self.rows - self.total_errors)
        return 1 - _ratio(self._misordered(), pairs)

    def augrc(self) -> NDArray:
        """Return the mean over k = 1 … n of (expected errors among the k most confident) / n.

        An error on place k counts n - k + 1 times. Among the errors themselves the order does not
        matter (1 + … + E); what does is how many right answers stand behind each of them.
        """
        errors = self.total_errors
        return _ratio(self._misordered() + errors * (errors + 1) / 2, self.rows**2)

    def risk_at_coverage(self, coverage: float) -> NDArray:
        """Return the expected error rate among the ceil(coverage * n) most confident rows."""
        k = np.ceil(coverage * self.rows - ROUNDING)
        return _ratio(self.errors_up_to(k), k)

    def coverage_at_risk(self, risk: float) -> NDArray:
        """Return the largest k / n whose k most confident rows have at most this expected risk."""
        share, before, after = self.share, self.before, self.after
        # right before a group with errors, risk is at a local minimum
        best = np.where(self.errors_before <= risk * before + ROUNDING, before, 0)
        whole = self.errors_before + self.errors <= risk * after + ROUNDING
        best = np.maximum(best, np.where(whole, after, 0))
        # within a group the expected risk crosses the limit once, from below if its share is larger
        rising = share > risk
        limit = np.where(rising, before * share - self.errors_before, 0)
        crossing = np.floor(limit / np.where(rising, share - risk, 1) + ROUNDING)
        best = np.maximum(best, np.where(crossing > before, np.minimum(crossing, after), 0))
        everything = np.where(self.total_errors <= risk * self.rows + ROUNDING, self.rows, 0)
        return _ratio(np.maximum(best.max(axis=0, initial=0), everything), self.rows)

    def adaptive_calibration_error(self, bins: int) -> NDArray:
        """Return the calibration error in equal-mass bins, see `adaptive_calibration_error`.

        The sum of (confidence - correct) over the k most confident rows is a curve over k that is
        linear within a tied group in expectation; a bin's gap is the curve's rise across it.
        """
        curve = _running_sum(self._residual @ self._weights)
        size, larger = np.divmod(self.rows, bins)
        ends = np.arange(bins + 1)[:, None]  # bins counted from the least confident rows
        cuts = self.rows - (ends * size + np.minimum(ends, larger))
        group = _first_reaching(self._after, cuts)
        column = np.arange(len(self.rows))
        end, height = self._after[group, column], curve[group, column]
        start = np.where(group > 0, self._after[group - 1, column], 0)
        foot = np.where(group > 0, curve[group - 1, column], 0)
        part = (cuts - start) / np.maximum(end - start, 1)
        rise = np.diff(foot + part * (height - foot), axis=0)
        return _ratio(np.abs(rise).sum(axis=0), self.rows)


def _ratio(numerator: NDArray, denominator: NDArray) -> NDArray:
    """Divide, giving NaN where there is nothing to divide by."""
    undefined = np.full(np.shape(numerator), np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)


def _running_sum(table: NDArray) -> NDArray:
    """Return cumulative sums down the rows of a [rows, R] table.

    One addition per row over all R columns: three times as fast as `numpy.cumsum(axis=0)`.
    """
    total = np.empty_like(table)
    total[:1] = table[:1]
    for above, row, out in zip(total[:-1], table[1:], total[1:], strict=True):
        np.add(above, row, out=out)
    return total


def _first_reaching(ascending: NDArray, target: NDArray) -> NDArray:
    """Return per column the first row of `ascending` [rows, R] that is >= `target` […, R]."""
    low = np.zeros(target.shape, dtype=np.intp)
    high = np.full(target.shape, len(ascending) - 1)
    column = np.arange(ascending.shape[1])
    for _ in range(len(ascending).bit_length()):
        middle = (low + high) // 2
        reached = ascending[middle, column] >= target
        high = np.where(reached, middle, high)
        low = np.where(reached, low, np.minimum(middle + 1, high))
    return low
