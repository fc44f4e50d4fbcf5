"""Scores that are on another scale than their column says, proved by what they sum to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from prunecal.core.errors import PrunecalError
from prunecal.imports.option_scores import LOG_PROBABILITIES, LOGITS
from prunecal.imports.top_tokens import COLUMN as TOP

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

LEAST_ROWS = 5  # with different numbers; fewer may sum to 1 by chance
APART = 0.05  # by which natural logarithms miss a sum of 1, and the largest of other probabilities
# misses 1, in rows that tell one scale from another
HALF = 0.5  # probability that one option has in some row; five logits of about 20 are no percent
SHARE = 0.9  # of these rows, in which a list of the likeliest tokens has to sum to nearly 1
CUT_OFF = 0.02  # probability of tokens beyond the end of such a list


class Scale(NamedTuple):
    """A scale of numbers that are probabilities underneath.

    Attributes:
        kind: what the numbers are.
        remedy: what to do about it.
        slack: by which sums may differ from 1, where numbers are rounded to two decimals.
        probability: of an array of numbers.
    """

    kind: str
    remedy: str
    slack: float
    probability: Callable[[NDArray], NDArray]


BASE_2 = Scale("logarithms to base 2", "multiply them by 0.6931472, ln 2", 0.004, np.exp2)
OTHERS = {
    LOGITS: (
        Scale("probabilities", "name the column so", 0.02, lambda x: x),
        Scale("percent", "divide by 100, name it probabilities", 0.02, lambda x: x / 100),
        BASE_2,
        Scale("logarithms to base 10", "multiply by 2.302585, ln 10", 0.01, lambda x: 10.0**x),
        Scale("losses", "negate them", 0.01, lambda x: np.exp(-x)),
    ),
    LOG_PROBABILITIES: (BASE_2,),
    TOP: (BASE_2,),
}


def refuse_other_scale(path: Path, form: str, given: Sequence[Sequence[float] | None]) -> None:
    """Refuse scores that on another scale are probabilities, which sum to 1 in every row.

    Args:
        path: of the file of answers.
        form: one of option_scores.FORMS.
        given: each row's numbers, of its options or, for TOP, of its tokens; None where one lacks.

    Raises:
        PrunecalError: names the scale.
    """
    rows = {tuple(sorted(row)) for row in given if row is not None and form in OTHERS}
    low, share = (1 - CUT_OFF, SHARE) if form == TOP else (None, 1)
    with np.errstate(over="ignore"):
        telling = [row for row in rows if abs(np.exp(row).sum() - 1) > APART]
        for scale in OTHERS[form] if len(telling) >= LEAST_ROWS else ():
            if not all(_may_be(scale, row) for row in rows):
                continue
            # logits that are shifted so that the least is 0 look like losses where a model is sure
            every = (scale.probability(np.array(row)) for row in telling)
            unsure = [one for one in every if one.max() <= 1 - APART]
            sums = np.array([one.sum() for one in unsure])
            if len(unsure) < LEAST_ROWS or max(map(max, unsure)) < HALF:
                continue
            if np.mean(sums >= (low or 1 - scale.slack)) >= share:
                raise PrunecalError(
                    f"{path} has {form} that are {scale.kind}, as which they sum to 1 in each row; "
                    f"{scale.remedy}"
                )


def _may_be(scale: Scale, row: tuple[float, ...]) -> bool:
    probabilities = scale.probability(np.array(row))
    return probabilities.min() >= 0 and probabilities.sum() <= 1 + scale.slack
