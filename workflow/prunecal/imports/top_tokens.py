"""The likeliest first tokens of an answer, as programs and APIs return them, and the options.

Layouts, each as the program itself writes it: `choices[0].logprobs` of OpenAI-compatible chat and
completions; the list of positions of OpenAI's responses, of Ollama and of llama.cpp's server
(`completion_probabilities`); `logprobs` of vLLM's engine; `top_tokens` of the server
text-generation-inference; `output_top_logprobs` of SGLang; `logprobsResult` of Gemini.
"""

from __future__ import annotations

import json
import math
import re
import sys
import unicodedata
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from prunecal.core.errors import PrunecalError, brief
from prunecal.datasets._answers import literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

COLUMN = "top_logprobs"
TOKEN = ("token", "decoded_token", "text")
NUMBER = ("logprob", "logProbability", "log_probability")
AROUND = ("body", "logprobs", "details", "meta_info", "logprobsResult", "logprobs_result")
POSITIONS = (
    "content", "completion_probabilities", "top_tokens", "output_top_logprobs", "topCandidates",
    "top_candidates",
)  # fmt: skip
ALTERNATIVES = (COLUMN, "candidates")  # of a position
LOWEST = -9000.0  # APIs write -9999 for a token that is "very unlikely" and not in their list
SLACK = 0.01  # by which rounded probabilities of the tokens may sum to more than 1
BLANKS = str.maketrans("▁ĠĊ", "  \n")  # as tokenizers write them
MARKS = "().:,[]*`\"'"  # around an option, as in "(A)" or "Yes."
# less MARKS: nothing, or a token such as <think>, but none that ends an answer
OPENING = re.compile(r"|<(?!/s>|[^<>]*(end|eo[st]))[^<>]+>")

Entries = list[tuple[Any, Any]]  # token and log-probability


class Position(NamedTuple):
    """One place of an answer: the token there, and the likeliest ones with theirs."""

    token: Any
    entries: Entries


def top_entries(where: str, value: Any) -> dict[str, float]:
    """Return the log-probability of each token at the first position whose token is not blank.

    Args:
        where: the file and row.
        value: one position's list, or a record of all positions, in one of the module's layouts,
            also as JSON text.

    Raises:
        PrunecalError: it is none of these, has several answers, begins with the prompt, or the
            tokens' probabilities sum to more than 1.
    """
    try:
        return _top_entries(where, value)
    except RecursionError as error:
        raise PrunecalError(
            f"{where} has lists or objects too deep in one another as its {COLUMN}; give an "
            "answer's list of tokens with their text and logprob, as the API returns it"
        ) from error


def _top_entries(where: str, value: Any) -> dict[str, float]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = literal(value)
    read = next((one for one in _positions(where, value) if not _is_blank(one.token)), None)
    if read is None or not all(
        isinstance(token, str) and isinstance(number, int | float) for token, number in read.entries
    ):
        raise PrunecalError(
            f"{where} has {brief(value)} as its {COLUMN}; give an answer's list of tokens with "
            "their text and logprob, as the API returns it"
        )
    if not read.entries:
        raise PrunecalError(
            f"{where} has no alternatives to its first token {brief(read.token)}; ask the API for "
            "them, such as with top_logprobs=20"
        )
    tokens: dict[str, float] = {}
    for token, number in read.entries:
        if number != -math.inf and not -sys.float_info.max <= number <= SLACK:  # also NaN
            raise PrunecalError(
                f"{where} has the log-probability {brief(number)} of {token!r}; give a finite one "
                "below 0"
            )
        if number > LOWEST:
            # of equal texts, such as those of "A" and "▁A", each has its own number
            tokens[token] = float(np.logaddexp(min(number, 0.0), tokens.get(token, -math.inf)))
    total = sum(map(math.exp, tokens.values()))
    if total > 1 + SLACK:
        raise PrunecalError(
            f"{where} has tokens whose probabilities sum to {total:.4g}; give natural logarithms "
            "of probabilities, of one position"
        )
    return tokens


def option_masses(
    where: str, tokens: Mapping[str, float], options: Sequence[str]
) -> tuple[NDArray, float]:
    """Return each option's probability and the most that the options without one can have.

    An option's probability is the sum over its spellings among the tokens; one that is not among
    them has 0.

    Args:
        where: the file and row.
        tokens: log-probability by token.
        options: of the question.

    Raises:
        PrunecalError: no token spells an option, or the likeliest is the beginning of one.
    """
    mass = np.zeros(len(options))
    other = []
    for token, number in tokens.items():
        spelled = _spelled(where, token, options)
        mass[spelled] += math.exp(number)
        if not spelled:
            other.append(token)
    begun = {
        token: option
        for token in other
        for option, share in zip(options, mass, strict=True)
        if share == 0 and _begins(token, option)
    }
    likeliest = max(tokens, key=lambda token: tokens[token], default="")
    opening = _bare(likeliest).strip(MARKS)
    if not _spelled(where, likeliest, options) and OPENING.fullmatch(opening):
        raise PrunecalError(
            f"{where} has the likeliest token {likeliest!r}, after which the answer comes; ask for "
            "answers of one token, such as letters, or give the next position's list"
        )
    if likeliest in begun:
        raise PrunecalError(
            f"{where} has the likeliest token {likeliest!r}, which only begins its option "
            f"{brief(begun[likeliest])}; ask for answers of one token, such as letters"
        )
    if not mass.any():
        ids = all(token.removeprefix("token_id:").isdecimal() for token in tokens)
        remedy = (
            "give texts instead of ids" if ids else "ask for more of them, or leave the row out"
        )
        raise PrunecalError(
            f"{where} has none of its options {brief(list(options))} among the tokens "
            f"{brief(list(tokens))}; {remedy}"
        )
    missing = int((mass == 0).sum())
    rest = max(0.0, 1 - sum(map(math.exp, tokens.values())))
    # a token that was cut off is no likelier than the last of the list
    unseen = min(rest, missing * math.exp(min(tokens.values())))
    return mass, unseen + sum(math.exp(tokens[token]) for token in begun)


def _positions(where: str, value: Any) -> list[Position]:
    """Return the positions of a record, or the only one."""
    if isinstance(value, dict):
        inner = _inside(where, value)
        if inner is not None:
            return _positions(where, inner)
        if isinstance(value.get(COLUMN), list) and isinstance(value.get("tokens", 0), list | None):
            return _of_completions(where, value)
        for key in POSITIONS:
            if isinstance(value.get(key), list):
                return [_position(one) for one in value[key]]
        return [_position(value)]
    if isinstance(value, list) and not any(map(_is_entry, value)):
        return [_position(one) for one in value]
    return [_position(value)]


def _inside(where: str, value: Mapping[str, Any]) -> Any:
    """Return what a whole response or choice holds its positions in, None if it is neither."""
    choices = value.get("choices")
    if isinstance(choices, list):
        if len(choices) != 1:
            raise PrunecalError(f"{where} has {len(choices)} answers; give one, `choices[0]`")
        return choices[0]
    return next((value[key] for key in AROUND if isinstance(value.get(key), dict | list)), None)


def _of_completions(where: str, value: Mapping[str, Any]) -> list[Position]:
    """Return the positions of the older form: three lists of equal length."""
    lists = value[COLUMN]
    if None in lists:
        raise PrunecalError(
            f"{where} begins with tokens of the prompt, whose first has no probabilities; ask the "
            "API for the answer alone, without `echo`"
        )
    tokens = value["tokens"] or [_position(one).token for one in lists]
    return [
        Position(token, _position(one).entries) for token, one in zip(tokens, lists, strict=False)
    ]


def _position(value: Any) -> Position:
    """Return a position: its own token, or else the likeliest, and its list."""
    if isinstance(value, dict):
        for key in ALTERNATIVES:
            if isinstance(value.get(key), list):
                entries = _entries(value[key])
                return Position(_first(value, TOKEN) or _best(entries), entries)
        given = {key: one for key, one in value.items() if one is not None}  # parquet has all keys
        entries = [
            _entry(one) if isinstance(one, dict) else (key, one) for key, one in given.items()
        ]
    else:
        entries = _entries(value) if isinstance(value, list) else [(None, None)]
    return Position(_best(entries), entries)


def _is_entry(value: Any) -> bool:
    """Tell whether a list's member is a token of one position, and not a position itself."""
    if isinstance(value, dict) and not any(
        isinstance(value.get(key), list) for key in ALTERNATIVES
    ):
        return _entry(value) != (None, None)
    return False


def _entries(listed: Sequence[Any]) -> Entries:
    """Return a list's entries, each once: some programs give the answer's own token twice."""
    return [_entry(one) for at, one in enumerate(listed) if one not in listed[:at]]


def _entry(value: Any) -> tuple[Any, Any]:
    """Return an entry's token and log-probability; SGLang writes log-probability, id and text."""
    if isinstance(value, dict):
        return _first(value, TOKEN), _first(value, NUMBER)
    if isinstance(value, list) and len(value) == 3:
        return value[2], value[0]
    return None, None


def _first(value: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((value[key] for key in keys if value.get(key) is not None), None)


def _best(entries: Entries) -> Any:
    numbers = [(number, token) for token, number in entries if isinstance(number, int | float)]
    return max(numbers, key=lambda one: one[0])[1] if numbers else None


def _bare(token: str) -> str:
    return unicodedata.normalize("NFC", token.translate(BLANKS).strip())


def _is_blank(token: Any) -> bool:
    return isinstance(token, str) and not _bare(token)


def _same(token: str, option: str) -> bool:
    """Tell whether a token spells an option: blanks and marks do not count, nor case in words."""
    token, option = _bare(token), unicodedata.normalize("NFC", option.strip())
    if option.isalpha():
        token = token.strip(MARKS)
    return token == option if len(option) == 1 else token.casefold() == option.casefold()


def _spelled(where: str, token: str, options: Sequence[str]) -> list[int]:
    """Return the option that a token spells, if any; of several, that which is so in case too."""
    same = [index for index, option in enumerate(options) if _same(token, option)]
    plain = _bare(token).strip(MARKS)
    exact = [index for index in same if options[index].strip() == plain]
    if len(same) > 1 and not exact:
        raise PrunecalError(
            f"{where} has the token {token!r}, which several of its options "
            f"{brief(list(options))} are but for case; ask for letters instead"
        )
    return exact if len(same) > 1 else same


def _begins(token: str, option: str) -> bool:
    """Tell whether an option goes on after a token."""
    token = _bare(token).casefold()
    return (
        bool(token)
        and len(token) < len(option.strip())
        and option.strip().casefold().startswith(token)
    )
