"""Options and answers of questions, in the forms in which benchmarks write them."""

from __future__ import annotations

import ast
import io
import itertools
import json
import math
import re
import string
import tokenize
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from prunecal.core.errors import PrunecalError, brief, control_character, encodable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

YES_NO = ["Yes", "No"]
YES_WORDS = {"yes": 0, "no": 1, "true": 0, "false": 1}
ABSENT = "nan"  # what is missing in copies that pandas wrote as text
FILLERS = ("n/a", "-", "null", "none", "<na>")  # may be a choice, or stand for none
LETTER = re.compile(r"\(?([A-Za-z])[).:]?")
WHOLE = re.compile(r"\d{1,9}")
POINTED = re.compile(r"-?\d+\.0")  # whole, as pandas writes it beside missing values
# a number of 12 digits or more, as spreadsheets save it
ROUNDED = re.compile(r"-?\d(\.\d+)?E\+(1[1-9]|[2-9]\d)", re.IGNORECASE)
QUOTES = re.compile(r"""['"][\s\\]*\w{0,2}['"]""")  # that may end one text and begin another
LARGEST_FLOAT = 2**53  # from here on some whole numbers are no floats


@dataclass(frozen=True)
class Answered:
    """A question's options and the answer as its row has it.

    Attributes:
        where: the file and row.
        options: texts of the choices, in order; of choices in the question's own text, letters.
        answer: a letter, an index, a number or a text.
    """

    where: str
    options: Sequence[str]
    answer: Any


def is_missing(value: Any) -> bool:
    """Tell whether a value stands for none: null, NaN, a blank text, or "nan"."""
    if isinstance(value, str):
        return not value.strip() or value.strip().lower() == ABSENT
    return value is None or value != value  # noqa: PLR0124  NaN alone differs from itself


def given_text(where: str, row: Mapping[str, Any], column: str) -> str:
    """Return the text in a row's column; whole numbers without a point, which pandas adds.

    Raises:
        PrunecalError: there is none, or a value of another kind, or a number that has lost digits.
    """
    value = row.get(column)
    large = isinstance(value, float) and LARGEST_FLOAT <= abs(value) < math.inf
    if large or (isinstance(value, str) and ROUNDED.fullmatch(value.strip())):
        raise PrunecalError(
            f"{where} has {brief(value)} as its {column}, a number that has lost its last digits; "
            "save it as text or as a whole number"
        )
    value = _exact(value)
    if is_missing(value) or not isinstance(value, str | int):
        raise PrunecalError(f"{where} has {brief(value)} as its {column}; give it some text")
    return str(value)


def listed_options(where: str, value: Any) -> list[str]:
    """Return the options in a row's list, or in its object with the keys A, B, ….

    A text is one that JSON or Python reads as such.

    Raises:
        PrunecalError: it is neither, or an option is no text or number.
    """
    options = value
    if isinstance(value, str):  # "1,000" alone would be two numbers
        options = literal(value) if value.lstrip().startswith(("[", "(", "{")) else None
    if isinstance(options, dict):
        names, values = list(options), list(options.values())
        plain = all(one is None or isinstance(one, str | int | float) for one in values)
        if plain and "".join(map(str, names)).upper() == string.ascii_uppercase[: len(names)]:
            options = lettered_options(where, names, values)
    if not isinstance(options, list | tuple) or not all(
        isinstance(one, str | int | float) and not isinstance(one, bool) for one in options
    ):
        raise PrunecalError(
            f"{where} has the options {brief(value)}; give a list of texts, or an object with the "
            "keys A, B and so on"
        )
    return [str(one) for one in options]


def accepted_answers(where: str, value: Any) -> list[str]:
    """Return the answers that a row accepts: a text or number, or a list of them, each once.

    In a list they may be objects with the key `answer`, as VQA's annotations have them.

    Raises:
        PrunecalError: there is none, one is no text or number, or a text is a list of numbers.
    """
    is_list = isinstance(value, str) and value.lstrip().startswith("[")
    listed = literal(value) if is_list else value
    if listed is None and is_list and value.rstrip().endswith("]"):
        raise PrunecalError(
            f"{where} has the answer {brief(value)}, in brackets but no list that can be read; "
            'write a list as JSON, such as ["cat"]'
        )
    answers = listed if isinstance(listed, list | tuple) else [value]
    if answers is listed:
        answers = [one.get("answer") if isinstance(one, dict) else one for one in answers]
    if isinstance(value, str) and any(isinstance(one, int | float) for one in answers):
        raise PrunecalError(
            f"{where} has the answer {brief(value)}, which may be one text or a list of "
            """numbers; write the accepted answers as quoted texts, such as ["1", "2"] or, for """
            """this one, ["[1, 2]"]"""
        )
    for one in answers:
        kind = isinstance(one, str | int | float) and not isinstance(one, bool)
        if is_missing(one) or not kind or one in (math.inf, -math.inf):
            raise PrunecalError(
                f"{where} has the answer {brief(value)}; give a text, or a list of those that are "
                "accepted"
            )
    if not answers:
        raise PrunecalError(f"{where} accepts no answer; give at least one")
    texts = list(dict.fromkeys(str(_exact(one)).strip() for one in answers))
    for text in texts:
        if not encodable(text) or control_character(text):
            raise PrunecalError(
                f"{where} has the answer {brief(text)}, which holds a control character or no "
                "character at all; save the data as UTF-8 text"
            )
    return texts


def _exact(value: Any) -> Any:
    """Return a whole number without a point, so that its text is what a model would say."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def literal(text: str) -> Any:
    """Return the value of a text that JSON or Python reads as a literal, None if neither does."""
    for read in (json.loads, _python):
        try:
            return read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, tokenize.TokenError):
            continue
    return None


def _python(text: str) -> Any:
    """Return the value of a Python literal without texts side by side, which Python joins.

    NumPy writes an array of texts so: ['cat' 'dog'].
    """
    value = ast.literal_eval(text)
    if not QUOTES.search(text):
        return value
    tokens = tokenize.generate_tokens(io.StringIO(text.strip()).readline)
    kinds = [one.type for one in tokens if one.type != tokenize.NL]
    if (tokenize.STRING, tokenize.STRING) in itertools.pairwise(kinds):
        raise ValueError("texts side by side")
    return value


def present_choices(where: str, values: Sequence[Any], absent: str | None) -> list[Any]:
    """Return what columns of choices hold, None for those that are not there.

    Args:
        where: the file and row.
        values: of the columns.
        absent: text that stands for none; None if the study does not say.

    Raises:
        PrunecalError: the last is a text that may be a choice or stand for none.
    """
    texts = [one.strip().lower() if isinstance(one, str) else "" for one in values]
    if absent is None and texts[-1] in FILLERS:
        raise PrunecalError(
            f"{where} has {brief(values[-1])} as its last choice; set `absent: {ABSENT}` if that "
            f"is one, or `absent: {json.dumps(values[-1])}` if there is none"
        )
    plain = (absent or ABSENT).strip().lower()
    return [None if text == plain else one for text, one in zip(texts, values, strict=True)]


def lettered_options(where: str, names: Sequence[str], values: Sequence[Any]) -> list[str]:
    """Return the options in columns, of which the last may be empty.

    Raises:
        PrunecalError: one before the last is empty.
    """
    options = [None if is_missing(value) else str(value) for value in values]
    while options and options[-1] is None:
        options.pop()
    if None in options:
        gap = names[options.index(None)]
        raise PrunecalError(
            f"{where} has nothing in {gap!r} but an option after it; close the gap, or give the "
            "option a text"
        )
    return [option for option in options if option is not None]


SHORT = (
    ", leave other rows out by `where:`, or ask for short answers: loader `table`, "
    "`form: short-answer`"
)


def yes_or_no(where: str, answer: Any, *, flag: bool = False) -> int:
    """Return the index of an answer among Yes and No.

    Args:
        where: the file and row.
        answer: yes, no, true or false, in any case.
        flag: whether 1 is yes and 0 no; else neither is accepted.

    Raises:
        PrunecalError: it is none of them.
    """
    text = str(_exact(answer)).strip().lower()
    text = text.removesuffix(".0" if POINTED.fullmatch(text) else ".")
    if flag and text in ("0", "1"):
        return 1 - int(text)
    if text in YES_WORDS:
        return YES_WORDS[text]
    more = "; if 1 is yes and 0 no, set `answer_is: flag`" if text in ("0", "1") else ""
    raise PrunecalError(f"{where} has the answer {brief(answer)}; make it yes or no{more or SHORT}")


def labels(questions: Sequence[Answered], reading: str | None = None) -> list[int]:
    """Return the index of each question's answer among its options.

    Without a reading, that one is taken which fits all rows; of several, all must agree.

    Args:
        questions: of one data set.
        reading: a key of READINGS.

    Raises:
        PrunecalError: an answer is no option of its row, or the rows can be read in two ways.
    """
    candidates = [reading] if reading else ["letter", "index", "text"]
    plain = _without_point(questions, reading)
    read = {name: [READINGS[name](one) for one in plain] for name in candidates}
    fits = [name for name, labels in read.items() if None not in labels]
    if not fits:
        # of the reading that fits most rows, the first row that it does not fit
        nearest = min(candidates, key=lambda name: read[name].count(None))
        one = questions[read[nearest].index(None)]
        what = "letter, index or text" if reading is None else reading
        raise PrunecalError(
            f"{one.where} has the answer {brief(one.answer)}, which is no {what} of its "
            f"{len(one.options)} options {brief(list(one.options))}; correct it"
            f"{_hint(reading, one.answer)}"
        )
    if reading is None and fits[0] == "index" and 0 not in read["index"]:
        _refuse_first_number(questions[0], plain, is_text="text" in fits)
    for row, values in enumerate(zip(*(read[name] for name in fits), strict=True)):
        if len(set(values)) > 1:
            one = questions[row]
            raise PrunecalError(
                f"{one.where} has the answer {brief(one.answer)}, which can be read as "
                f"{' or as '.join(fits)} among the options {brief(list(one.options))}; set "
                f"`answer_is:` to one of them"
            )
    return [label for label in read[fits[0]] if label is not None]


def _without_point(questions: Sequence[Answered], reading: str | None) -> list[Answered]:
    """Return questions whose answers N.0 are N, but those that are options of some row as they are.

    With a reading that counts options, all are N.
    """
    counts = reading in ("index", "number")
    kept = set() if counts else {option.strip() for one in questions for option in one.options}
    return [
        replace(one, answer=one.answer.strip().removesuffix(".0"))
        if _is_pointed(one.answer) and one.answer.strip() not in kept
        else one
        for one in questions
    ]


def _is_pointed(value: Any) -> bool:
    return isinstance(value, str) and POINTED.fullmatch(value.strip()) is not None


def _refuse_first_number(first: Answered, questions: Sequence[Answered], *, is_text: bool) -> None:
    """Refuse whole numbers of which none is 0 and none too large for a count from 1.

    Args:
        first: the first question, as its row has it.
        questions: all, their answers without a point.
        is_text: whether the answers are also texts of options.
    """
    if None not in map(_number, questions):
        how, text = "", ""
        if is_text:
            how, text = ", or be named by their texts", ", or `answer_is: text`"
        raise PrunecalError(
            f"{first.where} has the answer {brief(first.answer)}, and no row has 0: options may be "
            f"counted from 0 or from 1{how}; set `answer_is: index` or `answer_is: number`{text}"
        )


def _hint(reading: str | None, answer: Any) -> str:
    if reading:
        return ""
    index = "`answer_is: index` if options are counted from 0, " if _is_pointed(answer) else ""
    return f", or set {index}`answer_is: number` if options are counted from 1"


def _letter(one: Answered) -> int | None:
    match = LETTER.fullmatch(one.answer.strip()) if isinstance(one.answer, str) else None
    return _within(one, string.ascii_uppercase.index(match[1].upper())) if match else None


def _index(one: Answered) -> int | None:
    return _within(one, _whole(one.answer))


def _number(one: Answered) -> int | None:
    whole = _whole(one.answer)
    return None if whole is None else _within(one, whole - 1)


def _text(one: Answered) -> int | None:
    text = str(one.answer).strip()
    for same in (lambda option: option.strip(), lambda option: option.strip().lower()):
        places = [i for i, option in enumerate(one.options) if same(option) == same(text)]
        if len(places) == 1:
            return places[0]
    return None


def _whole(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    is_number = isinstance(value, str) and WHOLE.fullmatch(value.strip())
    return int(value) if is_number else None


def _within(one: Answered, index: int | None) -> int | None:
    return index if index is not None and 0 <= index < len(one.options) else None


READINGS: dict[str, Callable[[Answered], int | None]] = {
    "letter": _letter,
    "index": _index,
    "number": _number,
    "text": _text,
}
