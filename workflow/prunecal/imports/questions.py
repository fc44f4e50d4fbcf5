"""The questions that rows of a file of answers answer, and their order in the data set."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import binom

from prunecal import datasets
from prunecal.core.errors import PrunecalError, brief
from prunecal.datasets._answers import (
    POINTED,
    YES_NO,
    given_text,
    is_missing,
    listed_options,
    literal,
)
from prunecal.datasets.table import UNDIVIDED
from prunecal.study import short_answers
from prunecal.study.prompts import IMAGE

SWAPPED = 1e-4  # chance of as few right answers by guessing, below which yes and no are exchanged
MANY_ZEROS = 8  # labels of 0 that are expected; chance leaves out all in 1 of 3,000 such data sets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    import pyarrow as pa

    from prunecal.imports.answers import Answers
    from prunecal.study.data_settings import Imported

    Row = tuple[str, dict[str, Any]]


def questions(answers: Answers) -> list[dict[str, Any]]:
    """Return the questions that rows answer, as rows of `Dataset.questions`.

    A question without text is told apart by its id.

    Raises:
        PrunecalError: a row lacks an id, an image id, options or a label, or has ones that no data
            set may have.
    """
    rows, seen = [], dict[str, str]()
    is_divided = any(not is_missing(row.get("subset")) for _, row in answers.rows)
    for where, row in answers.rows:
        options = _options(where, row, answers)
        name = given_text(where, row, "question_id")
        record = {
            "question_id": name,
            "image_id": given_text(where, row, "image_id"),
            "subset": given_text(where, row, "subset") if is_divided else UNDIVIDED,
            "text": name if is_missing(row.get("text")) else row["text"],
            "options": options,
            "label": label(where, row.get("label"), options),
        }
        if fault := datasets.question_fault(SimpleNamespace(**record)):
            raise PrunecalError(f"{where} {fault}")
        _refuse_repeated(where, name, seen)
        rows.append(record)
    _refuse_values_as_labels(answers)
    return rows


def checked(entry: Imported, answers: Answers) -> pd.DataFrame:
    """Return the questions of a data set that no loader reads, from the rows of one of its cells.

    Raises:
        PrunecalError: as `questions`, or they make no data set of the kind that its name says, or
            labels seem to be counted from 1.
    """
    import pandas as pd

    asked = pd.DataFrame(questions(answers))
    _refuse_counts_from_one(answers, asked)
    datasets.check(entry.dataset, asked)
    short_answers.refuse_other_kind(entry.dataset, asked["options"])
    return asked


def _refuse_counts_from_one(answers: Answers, asked: pd.DataFrame) -> None:
    """Refuse labels that are numbers, none 0, where chance would have made many so.

    Questions of yes and no may all have one answer; `refuse_flags` looks at them.
    """
    rows = [
        (given, options, at)
        for given, options, at in zip(
            _labels(answers), asked["options"], asked["label"], strict=True
        )
        if {one.strip().lower() for one in options} not in ({"yes", "no"}, {"true", "false"})
    ]
    is_text = any(
        isinstance(given, str) and given.strip().lower() == options[at].strip().lower()
        for given, options, at in rows
    )
    numbers = [at for *_, at in rows]
    expected = sum(1 / len(options) for _, options, _ in rows)
    if not is_text and expected > MANY_ZEROS and min(numbers) > 0:
        raise PrunecalError(
            f"{answers.path} has labels from {min(numbers)} to {max(numbers)} and no 0, so they "
            "may be counted from 1; give the options' texts as labels, or subtract 1"
        )


def _refuse_values_as_labels(answers: Answers) -> None:
    """Refuse numbers as labels if they may be indices or, in every row, values of the options."""
    first = None
    for where, row in answers.rows:
        options, at = row.get("options"), row.get("label")
        options = literal(options) if isinstance(options, str) else options
        if not isinstance(at, int | float) or not isinstance(options, list) or at not in options:
            return
        first = first or (where, at, options) if options.index(at) != at else first
    if first:
        where, at, options = first
        raise PrunecalError(
            f"{where} has the label {brief(at)}, which is an index and a value among its options "
            f"{brief(options)}; write the options as texts, and as label the index from 0"
        )


def refuse_predictions_from_one(
    answers: Answers, told: Sequence[tuple[Any, Sequence[str], int, int]]
) -> None:
    """Refuse numbers as predictions, none 0, of which more are right if they count from 1.

    Args:
        answers: rows of a cell.
        told: of each its prediction, its options, which of them the prediction is read as, and
            which is right.
    """
    told = [one for one in told if len(one[1]) > len(YES_NO)]  # may all be the second of two
    is_text = any(
        isinstance(given, str) and given.strip().lower() == options[read].strip().lower()
        for given, options, read, _ in told
    )
    zeros = sum(right == 0 for *_, right in told)
    if is_text or zeros <= MANY_ZEROS or any(read == 0 for _, _, read, _ in told):
        return
    if sum(read - 1 == right for *_, read, right in told) > sum(
        read == right for *_, read, right in told
    ):
        raise PrunecalError(
            f"{answers.path} has predictions by number and no 0, more of which are right if 1 is "
            "the first option; give the options' texts as predictions, or subtract 1"
        )


def refuse_flags(answers: Answers, asked: pd.DataFrame, cell: pa.Table) -> None:
    """Refuse labels 0 and 1 of the options Yes and No if the model is far worse than chance.

    Args:
        answers: rows of the unpruned model.
        asked: their questions.
        cell: their predictions, in the questions' order.
    """
    order = {tuple(one.strip().lower() for one in options) for options in asked["options"]}
    is_text = any(isinstance(one, str) and one.strip().isalpha() for one in _labels(answers))
    if is_text or not order <= {("yes", "no"), ("true", "false")}:
        return
    if "prediction" in cell.column_names:
        predicted = cell["prediction"].to_numpy()
    else:
        predicted = np.array([np.argmax(one) for one in cell["logits"].to_pylist()])
    right = predicted == asked["label"].to_numpy()
    if binom.cdf(right.sum(), len(right), 0.5) < SWAPPED:
        raise PrunecalError(
            f"{answers.path} has labels by number, read as indices from 0 of the options "
            f"{', '.join(asked['options'].iloc[0])}, with which the unpruned model is right in "
            f"{right.mean():.0%} of its answers; if 1 is yes, write yes and no as labels"
        )


def _labels(answers: Answers) -> list[Any]:
    return [row.get("label") for _, row in answers.rows]


def label(where: str, value: Any, options: Sequence[str], what: str = "label") -> int:
    """Return the index of an option, the right one or `what` else: a number from 0, or its text.

    Raises:
        PrunecalError: it is neither, or text that can be read as both, or as two options.
    """
    if isinstance(value, str):
        text = value.strip()
        named = _named(text, options)
        if not named and POINTED.fullmatch(text):
            text = text.removesuffix(".0")  # as pandas writes whole numbers beside missing ones
            named = _named(text, options)
        index = int(text) if text.isdecimal() and len(text) < 4 else None
        if len(named) > 1:
            raise PrunecalError(
                f"{where} has the {what} {brief(value)}, which several of its options "
                f"{brief(list(options))} are but for case; write it as the option is"
            )
        readings = {*named, *([index] if index is not None else [])}
        if len(readings) > 1 and max(readings) < len(options):
            raise PrunecalError(
                f"{where} has the {what} {brief(value)}, which is an index and a text among its "
                f"options {brief(list(options))}; give the index as a number in JSON or parquet"
            )
        read = named[0] if named else index
    else:
        whole = isinstance(value, int | float) and not isinstance(value, bool)
        read = int(value) if whole and float(value).is_integer() else None
    if read is None or not 0 <= read < len(options):
        raise PrunecalError(
            f"{where} has the {what} {brief(value)}, outside its options {brief(list(options))}; "
            "give an index from 0 or the text of one"
        )
    return read


def _named(text: str, options: Sequence[str]) -> list[int]:
    """Return the options that a text is; if none is exactly, those that differ in case."""
    exact = [i for i, one in enumerate(options) if one.strip() == text]
    return exact or [i for i, one in enumerate(options) if one.strip().lower() == text.lower()]


def in_order(answers: Answers, asked: pd.DataFrame) -> list[tuple[Row, Mapping[str, Any]]]:
    """Return each question's row and the question, in the questions' order."""
    by_id: dict[str, Row] = {}
    seen: dict[str, str] = {}
    known = set(asked["question_id"])
    for where, row in answers.rows:
        name = given_text(where, row, "question_id")
        _refuse_repeated(where, name, seen)
        if name not in known:
            raise PrunecalError(
                f"{where} answers question {brief(name)}, which the data set does not have; use "
                "the data set's question ids"
            )
        by_id[name] = where, row
    missing = [name for name in asked["question_id"] if name not in by_id]
    if missing:
        raise PrunecalError(
            f"{answers.path} has no answer to {len(missing)} of {len(asked)} questions, the first "
            f"{brief(missing[0])}; answer all questions of the data set in every cell"
        )
    pairs = []
    texts = {
        _said(text): name for name, text in zip(asked["question_id"], asked["text"], strict=True)
    }
    for question in asked.to_dict("records"):
        where, row = by_id[question["question_id"]]
        _refuse_other_question(where, row, question, texts)
        pairs.append(((where, row), question))
    return pairs


def _refuse_repeated(where: str, name: str, seen: dict[str, str]) -> None:
    """Refuse a second row of a question; note the first in `seen`, rows by question id."""
    if name in seen:
        raise PrunecalError(
            f"{where} repeats the question id {brief(name)} of {seen[name]}; give every question "
            "one row per cell"
        )
    seen[name] = where


def _said(text: Any) -> str:
    """Return a question's text as it is compared: words alone, in lower case."""
    return " ".join(str(text).replace(IMAGE, " ").casefold().split())


def _refuse_other_question(
    where: str, row: Mapping[str, Any], question: Mapping[str, Any], texts: Mapping[str, str]
) -> None:
    """Refuse a row that says something else of its question than the data set does.

    Its text may have more or fewer words around it, but may not be that of another question.
    """
    said = "" if is_missing(row.get("text")) else _said(row["text"])
    if said in texts and said not in _said(question["text"]):
        raise PrunecalError(
            f"{where} has the text {brief(row['text'])} of question {brief(texts[said])}, not that "
            f"of {brief(question['question_id'])}; correct its question_id"
        )
    for name in ("image_id", "subset"):
        if not is_missing(row.get(name)) and given_text(where, row, name) != question[name]:
            raise PrunecalError(
                f"{where} has the {name} {brief(row[name])}, other than {brief(question[name])} of "
                f"question {brief(question['question_id'])}; correct one"
            )
    options = list(question["options"])
    if not is_missing(row.get("options")):
        own = listed_options(where, row["options"])
        if sorted(own) != sorted(options):
            raise PrunecalError(
                f"{where} has the options {brief(own)}, other than {brief(options)} of question "
                f"{brief(question['question_id'])}; correct one"
            )
    else:
        own = options
    if (
        not is_missing(row.get("label"))
        and own[label(where, row["label"], own)] != options[question["label"]]
    ):
        raise PrunecalError(
            f"{where} has the label {brief(row['label'])}, other than {question['label']} "
            f"({brief(options[question['label']])}) of question {brief(question['question_id'])}; "
            "correct one"
        )


def _options(where: str, row: Mapping[str, Any], answers: Answers) -> list[str]:
    """Return a row's options: its own, or those that have a column with a number in it."""
    if not is_missing(row.get("options")):
        return listed_options(where, row["options"])
    scores = answers.layout.scores_of(row) if answers.layout.by_option else None
    if not scores:
        raise PrunecalError(
            f"{where} has no options; give a column `options` with a list, or a column for each, "
            "such as probability_Yes and probability_No"
        )
    return list(scores)
