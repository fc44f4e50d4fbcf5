"""What a row says of its options: logits, log-probabilities, probabilities, or a top-k list.

All become one number per option whose softmax is the probability: a logit, or the logarithm of a
probability. An option without a number gets -inf, which is counted.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecal.core.errors import PrunecalError, brief
from prunecal.datasets._answers import is_missing, literal
from prunecal.storage.schemas import MOST_TOKENS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

LOGITS, LOG_PROBABILITIES, PROBABILITIES = "logits", "log_probabilities", "probabilities"
TOP = "top_logprobs"
FORMS = (LOGITS, LOG_PROBABILITIES, PROBABILITIES, TOP)
PREFIX = {"logit_": LOGITS, "log_probability_": LOG_PROBABILITIES, "probability_": PROBABILITIES}
SLACK = 1e-3  # by which rounding may let probabilities sum to more than 1
LOWEST = -9000.0  # APIs write -9999 for a token that is "very unlikely" and not in their list
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
    """

    values: NDArray
    unseen: float


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
        return _of_top(where, top_entries(where, value), options)
    numbers = _numbers(where, form, value, options)
    given = [number for number in numbers if number is not None]
    if not given:
        raise PrunecalError(f"{where} has no {form} of any option; give those of its answer")
    missing = len(given) < len(numbers)
    if form == LOGITS:
        if any(abs(number) > LARGEST for number in given):
            raise PrunecalError(f"{where} has logits {brief(given)}; give finite ones")
        return Scores(_array(numbers), math.nan if missing else 0.0)
    if form == PROBABILITIES:
        if min(given) < 0 or max(given) > 1 + SLACK or max(given) == 0:
            raise PrunecalError(
                f"{where} has probabilities {brief(given)}; give numbers from 0 to 1, not all 0"
            )
        total = sum(given)
        logs = [math.log(number) if number else None for number in map(_zero, numbers)]
    else:
        if max(given) > SLACK:
            raise PrunecalError(
                f"{where} has log-probabilities {brief(given)}; they are at most 0, so these may "
                "be logits: name the column logits"
            )
        total = sum(map(math.exp, given))
        logs = [number if number is not None and number > LOWEST else None for number in numbers]
    if total > 1 + SLACK * len(given):
        raise PrunecalError(f"{where} has {form} that sum to {total:.4g}; give at most 1 in all")
    if all(number is None for number in logs):
        raise PrunecalError(f"{where} gives every option a probability of 0; give one of them more")
    return Scores(_array(logs), max(0.0, 1 - total) if missing else 0.0)


def _zero(number: float | None) -> float:
    return number or 0.0


def _array(numbers: Sequence[float | None]) -> NDArray:
    return np.array([-np.inf if number is None else number for number in numbers])


def _numbers(where: str, form: str, value: Any, options: Sequence[str]) -> list[float | None]:
    if isinstance(value, str):
        value = literal(value)
    if isinstance(value, dict):
        unknown = [key for key in value if key not in options]
        if unknown:
            raise PrunecalError(
                f"{where} has {form} of {brief(unknown[0])}, which is not one of its options "
                f"{brief(list(options))}"
            )
        value = [value.get(option) for option in options]
    if not isinstance(value, list) or len(value) != len(options):
        raise PrunecalError(
            f"{where} has {form} {brief(value)}; give a number for each of its {len(options)} "
            "options"
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
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number) or number == math.inf:
        raise PrunecalError(f"{where} has {brief(value)} in {name}; give a finite number")
    return None if number == -math.inf else number


def top_entries(where: str, value: Any) -> dict[str, float]:
    """Return the log-probability of each token in a list of the most likely ones.

    Args:
        where: the file and row.
        value: one position's list, or a record of all positions, of which the first counts whose
            token is not blank. A list is an OpenAI-compatible API's `top_logprobs`, a list of
            objects with token and logprob; its older form, an object with the log-probability by
            token; or vLLM's own, an object whose values have logprob and decoded_token. A record is
            an API's `choices[0].logprobs`, with `content` or with `top_logprobs`; or vLLM's list
            of objects. JSON text is read first.

    Raises:
        PrunecalError: it is none of these.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = literal(value)
    entries = _entries(_position(value))
    if not entries or not all(
        isinstance(token, str) and isinstance(number, int | float) for token, number in entries
    ):
        raise PrunecalError(
            f"{where} has {brief(value)} as its {TOP}; give an answer's list of tokens with their "
            "logprob, as the API returns it"
        )
    tokens: dict[str, float] = {}
    for token, number in entries:
        if number > SLACK or math.isnan(number):
            raise PrunecalError(
                f"{where} has the log-probability {number} of {token!r}; give one below 0"
            )
        if number > LOWEST:
            tokens[token] = max(number, tokens.get(token, -math.inf))
    return tokens


def _position(value: Any) -> Any:
    """Return the list of the first position whose own token is not blank."""
    if isinstance(value, dict) and isinstance(value.get("content"), list):
        positions = [
            (one.get("token", ""), one.get("top_logprobs"))
            for one in value["content"]
            if isinstance(one, dict)
        ]
    elif isinstance(value, dict) and isinstance(value.get("top_logprobs"), list):
        tokens = value.get("tokens") or [_best(one) for one in value["top_logprobs"]]
        positions = list(zip(tokens, value["top_logprobs"], strict=False))
    elif isinstance(value, list) and value and all(_is_position(one) for one in value):
        positions = [(_best(one), one) for one in value]
    else:
        return value
    return next((top for token, top in positions if str(token).strip()), None)


def _is_position(one: Any) -> bool:
    """Tell whether an entry of a list is a position of vLLM, and not a token."""
    return isinstance(one, dict) and bool(one) and all(isinstance(v, dict) for v in one.values())


def _best(position: Any) -> str:
    entries = _entries(position)
    return max(entries, key=lambda entry: entry[1])[0] if entries else ""


def _entries(value: Any) -> list[tuple[Any, Any]]:
    """Return pairs of a token and its log-probability."""
    if isinstance(value, list):
        return [
            (one.get("token"), one.get("logprob")) if isinstance(one, dict) else (None, None)
            for one in value
        ]
    if isinstance(value, dict):
        return [
            (one.get("decoded_token"), one.get("logprob")) if isinstance(one, dict) else (key, one)
            for key, one in value.items()
        ]
    return []


def _of_top(where: str, tokens: Mapping[str, float], options: Sequence[str]) -> Scores:
    """Return the options' log-probabilities: of each, the sum over its spellings in the list."""
    mass = np.zeros(len(options))
    for token, number in tokens.items():
        for index, option in enumerate(options):
            if _same(token, option):
                mass[index] += math.exp(number)
    if not mass.any():
        raise PrunecalError(
            f"{where} has none of its options {brief(list(options))} among the tokens "
            f"{brief(list(tokens))}; ask for more of them, or leave the row out"
        )
    missing = int((mass == 0).sum())
    rest = max(0.0, 1 - sum(map(math.exp, tokens.values())))
    # a token that was cut off is no likelier than the last of the list
    unseen = min(rest, missing * math.exp(min(tokens.values())))
    with np.errstate(divide="ignore"):
        return Scores(np.log(mass), unseen)


def _same(token: str, option: str) -> bool:
    """Tell whether a token spells an option: blanks do not count, nor case in words."""
    token, option = token.strip(), option.strip()
    if len(option) == 1:
        return token == option
    return token.casefold() == option.casefold()


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
