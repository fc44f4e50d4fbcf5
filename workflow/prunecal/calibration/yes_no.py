"""Precision, recall and F1 of answers to yes/no questions, with "yes" as the positive class.

Source of the definitions: van Rijsbergen, Information Retrieval, 1979, chapter 7; with "yes" as the
positive class they are what POPE reports (Li et al., arXiv 2305.10355, section 5.1).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prunecal.calibration.ranked import ratio


class YesNo(NamedTuple):
    """Counts of answers under R weightings, float64 [R]."""

    true_yes: NDArray
    false_yes: NDArray
    false_no: NDArray

    @classmethod
    def of(cls, yes: NDArray, correct: NDArray, cluster: NDArray, weights: NDArray) -> YesNo:
        """Count rows.

        Args:
            yes: whether the answer is yes, bool [n].
            correct: whether it is right, bool [n].
            cluster: int [n], index of the row's cluster among the rows of `weights`.
            weights: float64 [clusters, R].
        """
        counted = (yes & correct, yes & ~correct, ~yes & ~correct)
        sums = [np.bincount(cluster, rows, len(weights)) for rows in counted]
        return cls(*(np.stack(sums) @ weights))

    def precision(self) -> NDArray:
        """Return the share of right ones among the answers "yes"; NaN where there is none."""
        return ratio(self.true_yes, self.true_yes + self.false_yes)

    def recall(self) -> NDArray:
        """Return the share of the questions with the answer "yes" that got it; NaN without any."""
        return ratio(self.true_yes, self.true_yes + self.false_no)

    def f1(self) -> NDArray:
        """Return the harmonic mean of precision and recall; NaN where there is no "yes" at all."""
        return ratio(2 * self.true_yes, 2 * self.true_yes + self.false_yes + self.false_no)
