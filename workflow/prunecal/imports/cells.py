"""A cell's table of predictions, made from rows of a file and compared with the data set."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from prunecal.core.errors import PrunecalError, brief
from prunecal.datasets import question_fault
from prunecal.datasets._answers import is_missing, listed_options, literal
from prunecal.datasets.table import UNDIVIDED
from prunecal.imports.answers import KEPT, READINGS
from prunecal.imports.option_scores import (
    LOGITS,
    kept_number,
    number_of,
    row_scores,
    stored_logits,
)

LETTERS = "letter_logits"

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

    from prunecal.imports.answers import Answers
    from prunecal.study.budgets import Budget

    Row = tuple[str, dict[str, Any]]


class Told(NamedTuple):
    """What has to be said of a cell's scores.

    Attributes:
        missing: options without a score, of all rows.
        rows: that lack the score of an option.
        unseen: the most probability that they can have together in a row; None where nothing bounds
            it.
    """

    missing: int
    rows: int
    unseen: float | None


def questions(answers: Answers) -> list[dict[str, Any]]:
    """Return the questions that rows answer, as rows of `Dataset.questions`.

    A question without text is told apart by its id.

    Raises:
        PrunecalError: a row lacks an id, an image id, options or a label, or has ones that no data
            set may have.
    """
    rows, first = [], dict[str, str]()
    for where, row in answers.rows:
        options = _options(where, row, answers)
        name = _text(where, row, "question_id")
        record = {
            "question_id": name,
            "image_id": _text(where, row, "image_id"),
            "subset": UNDIVIDED if row.get("subset") is None else _text(where, row, "subset"),
            "text": name if is_missing(row.get("text")) else row["text"],
            "options": options,
            "label": label(where, row.get("label"), options),
        }
        if fault := question_fault(SimpleNamespace(**record)):
            raise PrunecalError(f"{where} {fault}")
        if other := first.get(name):
            raise PrunecalError(
                f"{where} repeats the question id {brief(name)} of {other}; give every question "
                "one row per cell"
            )
        first[name] = where
        rows.append(record)
    return rows


def label(where: str, value: Any, options: Sequence[str]) -> int:
    """Return the index of the right option: a number from 0, or the text of an option.

    Raises:
        PrunecalError: it is neither, or text that can be read as both.
    """
    if isinstance(value, str):
        text = value.strip()
        named = [i for i, one in enumerate(options) if one.strip().lower() == text.lower()]
        index = int(text) if text.isdecimal() and len(text) < 4 else None
        readings = {*named[:1], *([index] if index is not None else [])}
        if len(readings) > 1 and max(readings) < len(options):
            raise PrunecalError(
                f"{where} has the label {brief(value)}, which is an index and a text among its "
                f"options {brief(list(options))}; give the index as a number in JSON or parquet"
            )
        read = named[0] if named else index
    else:
        whole = isinstance(value, int | float) and not isinstance(value, bool)
        read = int(value) if whole and float(value).is_integer() else None
    if read is None or not 0 <= read < len(options):
        raise PrunecalError(
            f"{where} has the label {brief(value)}, outside its options {brief(list(options))}; "
            "give an index from 0 or the text of one"
        )
    return read


def table(
    answers: Answers, asked: pd.DataFrame, budget: Budget, *, stated: bool
) -> tuple[pa.Table, Told]:
    """Return a cell's predictions, in the order of the questions.

    Args:
        answers: the cell's rows.
        asked: the data set's questions; what rows say of them too has to agree.
        budget: visual tokens kept, where rows have no n_visual.
        stated: whether the confidences are stated ones, without scores.

    Raises:
        PrunecalError: a question has no row or two, a row answers none of the questions or says
            something else of it, or its scores do not fit.
    """
    import pyarrow as pa

    rows = _in_order(answers, asked)
    columns: dict[str, list[Any]] = {name: [] for name in KEPT}
    for (where, row), _ in rows:
        visual, coverage, normaliser, token = (
            kept_number(where, name, row.get(name)) for name in KEPT
        )
        if visual is None and not isinstance(budget, int):
            raise PrunecalError(
                f"{where} has no n_visual, and the budget {budget} does not tell how many visual "
                "tokens were kept; add that column, or give visual_tokens if all images have as "
                "many"
            )
        columns["n_visual"].append(budget if visual is None else int(visual))
        columns["coverage"].append(math.nan if coverage is None else coverage)
        columns["log_normaliser"].append(normaliser)
        columns["top_token"].append(None if token is None else int(token))
    fields = {
        **{
            name: pa.array(asked[name], pa.string())
            for name in ("question_id", "image_id", "subset")
        },
        "options": pa.array(asked["options"], pa.list_(pa.string())),
        "label": pa.array(asked["label"], pa.int8()),
        "logits": pa.nulls(len(asked), pa.list_(pa.float32())),
        "log_normaliser": pa.array(columns["log_normaliser"], pa.float32()),
        "top_token": pa.array(columns["top_token"], pa.int32()),
        "n_visual": pa.array(columns["n_visual"], pa.int32()),
        "coverage": pa.array(np.array(columns["coverage"], dtype=np.float32), pa.float32()),
    }
    told = Told(0, 0, 0.0)
    if stated:
        fields["prediction"], fields["confidence"] = _stated(rows)
    else:
        logits, told = _logits(answers, rows)
        if answers.layout.form == LOGITS:
            _refuse_small_normaliser(rows, logits, columns["log_normaliser"])
        fields["logits"] = pa.array(logits, pa.list_(pa.float32()))
        fields |= {
            name: pa.array([_numbers(one, name) for one in rows], pa.list_(pa.float32()))
            for name in READINGS
            if name in answers.layout.columns and not is_missing(rows[0][0][1][name])
        }
    return pa.table(fields), told


def _refuse_small_normaliser(
    rows: Sequence[tuple[Row, Any]], logits: Sequence[NDArray], given: Sequence[float | None]
) -> None:
    """Refuse an option that would have a probability above 1 among all words."""
    for ((where, _), _), one, normaliser in zip(rows, logits, given, strict=True):
        if normaliser is not None and normaliser < max(one) - 1e-3 * (1 + abs(normaliser)):
            raise PrunecalError(
                f"{where} has the log_normaliser {normaliser:g}, less than its logit "
                f"{max(one):g}; give the logsumexp over the whole vocabulary of the same logits"
            )


def _in_order(answers: Answers, asked: pd.DataFrame) -> list[tuple[Row, Mapping[str, Any]]]:
    """Return each question's row and the question, in the questions' order."""
    by_id: dict[str, Row] = {}
    known = set(asked["question_id"])
    for where, row in answers.rows:
        name = _text(where, row, "question_id")
        if name in by_id:
            raise PrunecalError(
                f"{where} repeats the question id {brief(name)} of {by_id[name][0]}; give every "
                "question one row per cell"
            )
        if name not in known:
            raise PrunecalError(
                f"{where} answers question {brief(name)}, which the data set does not have; use "
                "the data set's question ids"
            )
        by_id[name] = where, row
    missing = [name for name in asked["question_id"] if name not in by_id]
    if missing:
        raise PrunecalError(
            f"{answers.path} has no answer to question {brief(missing[0])} and {len(missing) - 1} "
            f"more of {len(asked)}; answer all questions of the data set in every cell"
        )
    pairs = []
    for question in asked.to_dict("records"):
        where, row = by_id[question["question_id"]]
        _refuse_other_question(where, row, question)
        pairs.append(((where, row), question))
    return pairs


def _refuse_other_question(where: str, row: Mapping[str, Any], question: Mapping[str, Any]) -> None:
    for name in ("image_id", "subset"):
        if not is_missing(row.get(name)) and str(row[name]) != question[name]:
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
            f"{where} has the label {brief(row['label'])}, other than {question['label']} of "
            f"question {brief(question['question_id'])}; correct one"
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


def _logits(
    answers: Answers, rows: Sequence[tuple[Row, Mapping[str, Any]]]
) -> tuple[list[NDArray], Told]:
    form = answers.layout.form
    if form is None:
        raise PrunecalError(
            f"{answers.path} has stated confidences alone; say what they are: `confidence: "
            "verbalised`, `sampled` or `sequence`"
        )
    width = max(len(question["options"]) for _, question in rows)
    values = np.full((len(rows), width), -np.inf)
    missing, short, unseen = 0, 0, 0.0
    for number, ((where, row), question) in enumerate(rows):
        options = list(question["options"])
        own = options if is_missing(row.get("options")) else listed_options(where, row["options"])
        scores = row_scores(where, form, answers.layout.scores_of(row), own)
        values[number, : len(options)] = [scores.values[own.index(option)] for option in options]
        absent = int(np.isneginf(scores.values).sum())
        missing += absent
        short += bool(absent)
        unseen = max(unseen, scores.unseen) if scores.unseen == scores.unseen else math.nan
    stored = stored_logits(values)
    logits = [
        one[: len(question["options"])] for one, (_, question) in zip(stored, rows, strict=True)
    ]
    return logits, Told(missing, short, None if math.isnan(unseen) else unseen)


def _numbers(answered: tuple[Row, Mapping[str, Any]], name: str) -> list[float]:
    """Return a list of numbers of a row: per option, in the question's order, or of letters."""
    (where, row), question = answered
    value = literal(row[name]) if isinstance(row[name], str) else row[name]
    if not isinstance(value, list) or not all(isinstance(one, int | float) for one in value):
        raise PrunecalError(f"{where} has {brief(value)} as its {name}; give a list of numbers")
    own = None if is_missing(row.get("options")) else listed_options(where, row["options"])
    if name == LETTERS:
        return value
    if len(value) != len(question["options"]):
        raise PrunecalError(f"{where} has {len(value)} {name}; give one per option")
    if own is None:
        return value
    return [value[own.index(option)] for option in question["options"]]


def _stated(rows: Sequence[tuple[Row, Mapping[str, Any]]]) -> tuple[pa.Array, pa.Array]:
    import pyarrow as pa

    predictions, confidences = [], []
    for (where, row), question in rows:
        options = list(question["options"])
        own = options if is_missing(row.get("options")) else listed_options(where, row["options"])
        number = number_of(where, "confidence", row.get("confidence"))
        if number is None or not 0 <= number <= 1:
            raise PrunecalError(
                f"{where} has the confidence {brief(row.get('confidence'))}; give a number from 0 "
                "to 1"
            )
        if is_missing(row.get("prediction")):
            raise PrunecalError(f"{where} has no prediction; give the option that was answered")
        predictions.append(options.index(own[label(where, row["prediction"], own)]))
        confidences.append(number)
    return pa.array(predictions, pa.int8()), pa.array(confidences, pa.float64())


def _text(where: str, row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if is_missing(value) or not isinstance(value, str | int):
        raise PrunecalError(f"{where} has {brief(value)} as its {name}; give some text")
    return str(value)
