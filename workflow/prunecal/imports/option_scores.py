"""What a row says of its options: logits, log-probabilities, probabilities, or a top-k list.

All become one number per option whose softmax is the probability: a logit, or the logarithm of a
probability. An option without a number gets -inf, which is counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecal.core.errors import PrunecalError, brief
from prunecal.datasets._answers import is_missing, literal
from prunecal.imports.top_tokens import COLUMN as TOP
from prunecal.imports.top_tokens import LOWEST, option_masses, top_entries
from prunecal.storage.schemas import MOST_TOKENS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LOGITS, LOG_PROBABILITIES, PROBABILITIES = "logits", "log_probabilities", "probabilities"
FORMS = (LOGITS, LOG_PROBABILITIES, PROBABILITIES, TOP)
PREFIX = {"logit_": LOGITS, "log_probability_": LOG_PROBABILITIES, "probability_": PROBABILITIES}
SLACK = 1e-3  # by which rounding may let probabilities sum to more than 1
LIMITS = {  # of further columns: least, most, whether it counts something
    "n_visual": (0, MOST_TOKENS, True),
    "coverage": (-1.001, 1.001, False),
    "log_normaliser": (-1e30, 1e30, False),
    "top_token": (0, 2**31 - 1, True),
}
LARGEST = 1e30  # as read_cell: differences of larger logits overflow float32


@dataclass(frozen=True)
class Scores:
    """The numbers of one row.

    Attributes:
        values: float64 [options], -inf for an option without a number.
        unseen: the most probability that the options without a number can have together; NaN where
            nothing bounds it (logits), 0 where none is missing.
        mass: the options' probabilities, summed; NaN of logits.
        given: the numbers as the row has them, of a top-k list those of its tokens; None if an
            option has none.
    """

    values: NDArray
    unseen: float
    mass: float
    given: Sequence[float] | None = None


def row_scores(where: str, form: str, value: Any, options: Sequence[str]) -> Scores:
    """Return the scores of a row's options.

    Args:
        where: the file and row, for messages.
        form: one of FORMS.
        value: a list with a number per option, in their order; an object with a number by option;
            such a list or object as JSON text; for TOP, what `top_entries` takes.
        options: of the row.

    Raises:
        PrunecalError: the value has another form, a number is NaN or infinite or outside its range,
            probabilities sum to more than 1, or no option has a number.
    """
    if form == TOP:
        tokens = top_entries(where, value)
        mass, unseen = option_masses(where, tokens, options)
        with np.errstate(divide="ignore"):
            return Scores(np.log(mass), unseen, mass.sum(), [*tokens.values()])
    numbers = _numbers(where, form, value, options)
    given = [number for number in numbers if number is not None]
    if not given:
        raise PrunecalError(f"{where} has no {form} of any option; give those of its answer")
    missing = len(given) < len(numbers)
    if form == LOGITS:
        if any(abs(number) > LARGEST for number in given):
            raise PrunecalError(f"{where} has logits {brief(given)}; give finite ones")
        whole = None if missing else given
        return Scores(_array(numbers), math.nan if missing else 0.0, math.nan, whole)
    if form == PROBABILITIES:
        if min(given) < 0 or max(given) > 1 + SLACK or max(given) == 0:
            raise PrunecalError(
                f"{where} has probabilities {brief(given)}; give numbers from 0 to 1, not "
                "percent and not all 0"
            )
        total = sum(given)
        logs = [math.log(number) if number else None for number in map(_zero, numbers)]
    else:
        if max(given) > SLACK:
            raise PrunecalError(
                f"{where} has log-probabilities {brief(given)}; they are at most 0, so these may "
                "be logits (name the column logits) or losses (negate them)"
            )
        logs = [number if number is not None and number > LOWEST else None for number in numbers]
        missing = None in logs
        total = sum(math.exp(number) for number in logs if number is not None)
    if total > 1 + SLACK * len(given):
        what = "natural logarithms of probabilities" if form == LOG_PROBABILITIES else "numbers"
        raise PrunecalError(
            f"{where} has {form} that sum to {total:.4g}; give {what} that sum to 1 at most"
        )
    if all(number is None for number in logs):
        raise PrunecalError(f"{where} gives every option a probability of 0; give one of them more")
    unseen = max(0.0, 1 - total) if missing else 0.0
    return Scores(_array(logs), unseen, total, None if missing else given)


def _zero(number: float | None) -> float:
    return number or 0.0


def _array(numbers: Sequence[float | None]) -> NDArray:
    return np.array([-np.inf if number is None else number for number in numbers])


def _numbers(where: str, form: str, value: Any, options: Sequence[str]) -> list[float | None]:
    given, value = value, literal(value) if isinstance(value, str) else value
    if isinstance(value, dict):  # in parquet each has the keys of all
        unknown = [key for key, one in value.items() if key not in options and one is not None]
        if unknown:
            raise PrunecalError(
                f"{where} has {form} of {brief(unknown[0])}, which is not one of its options "
                f"{brief(list(options))}"
            )
        value = [value.get(option) for option in options]
    if not isinstance(value, list) or len(value) != len(options):
        raise PrunecalError(
            f"{where} has {form} {brief(given)}; give a number for each of its {len(options)} "
            "options"
        )
    if any(isinstance(one, float) and math.isnan(one) for one in value):
        raise PrunecalError(
            f"{where} has {form} {brief(given)}; give numbers, and null where there is none"
        )
    return [number_of(where, form, one) for one in value]


def kept_number(where: str, name: str, value: Any) -> float | None:
    """Return a number of one of the columns in LIMITS, None where there is none.

    Raises:
        PrunecalError: it is not a number, outside its limits, or not whole where it counts.
    """
    number, (low, high, is_count) = number_of(where, name, value), LIMITS[name]
    if number is not None and not (low <= number <= high and (number.is_integer() or not is_count)):
        kind = "a whole number" if is_count else "a number"
        raise PrunecalError(
            f"{where} has {brief(value)} as its {name}; give {kind} from {low:g} to {high:g}"
        )
    return number


def number_of(where: str, name: str, value: Any) -> float | None:
    """Return a number, None where there is none.

    Raises:
        PrunecalError: it is not a number, or infinite upwards.
    """
    if is_missing(value):
        return None
    plain = not isinstance(value, bool) and "_" not in str(value)  # Python reads 0_7 as 7
    try:
        number = float(value) if plain else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number) or number == math.inf:
        raise PrunecalError(f"{where} has {brief(value)} in {name}; give a finite number")
    return None if number == -math.inf else number


def stored_logits(values: NDArray) -> NDArray:
    """Return scores as float32 whose softmax gives no more confidence than float64.

    A probability given as 0.6 is an edge of 15 bins and belongs below it; rounded up it would not.

    Args:
        values: float64 [n, K], -inf where there is no score.
    """
    exact = _confidence(values)
    stored = values.astype(np.float32)
    top = values == values.max(axis=1, keepdims=True)
    for _ in range(4):
        above = _confidence(stored.astype(np.float64)) > exact
        lower = np.nextafter(stored, np.float32(-np.inf))
        stored = np.where(top & above[:, None], lower, stored)
    return stored


def _confidence(values: NDArray) -> NDArray:
    return 1 / np.exp(values - values.max(axis=1, keepdims=True)).sum(axis=1)
