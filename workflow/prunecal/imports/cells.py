"""A cell's table of predictions, made from rows of a file and compared with the data set."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from prunecal.core.errors import PrunecalError, brief
from prunecal.datasets._answers import is_missing, listed_options, literal
from prunecal.imports.answers import KEPT, READINGS
from prunecal.imports.option_scores import (
    LOGITS,
    TOP,
    kept_number,
    number_of,
    row_scores,
    stored_logits,
)
from prunecal.imports.questions import in_order, label, refuse_predictions_from_one
from prunecal.imports.scales import refuse_other_scale

LETTERS = "letter_logits"
WHOLE = 0.99  # what probabilities sum to, if they are not parts of more

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

    from prunecal.imports.answers import Answers
    from prunecal.imports.questions import Row
    from prunecal.study.budgets import Budget


class Told(NamedTuple):
    """What has to be said of a cell's scores.

    Attributes:
        missing: options without a score, of all rows.
        rows: that lack the score of an option.
        unseen: the most probability that they can have together in a row; None where nothing bounds
            it.
        mass: the sum of a row's probabilities, on average; NaN where scores are none.
    """

    missing: int
    rows: int
    unseen: float | None
    mass: float


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

    rows = in_order(answers, asked)
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
    _refuse_gaps(rows, columns)
    mean = np.mean(columns["n_visual"])  # methods that adapt to the image keep more of some
    if isinstance(budget, int) and round(mean) > budget:
        raise PrunecalError(
            f"{answers.path} has {mean:g} as n_visual in the mean of a cell, more than its budget "
            f"of {budget} tokens; correct one"
        )
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
    told = Told(0, 0, 0.0, math.nan)
    if stated:
        fields["prediction"], fields["confidence"] = _stated(answers, rows)
    else:
        logits, told = _logits(answers, rows)
        if answers.layout.form == LOGITS:
            _refuse_small_normaliser(rows, logits, columns["log_normaliser"])
        if answers.layout.form == TOP and columns["log_normaliser"] == [None] * len(rows):
            # log-probabilities among all words; rounded ones may sum to a little more than 1
            sums = [max(0.0, np.logaddexp.reduce(one)) for one in logits]
            fields["log_normaliser"] = pa.array(sums, pa.float32())
        fields["logits"] = pa.array(logits, pa.list_(pa.float32()))
        fields |= {
            name: pa.array([_numbers(one, name) for one in rows], pa.list_(pa.float32()))
            for name in READINGS
            if name in answers.layout.columns
            and not all(is_missing(row[name]) for (_, row), _ in rows)
        }
    return pa.table(fields), told


def _refuse_gaps(rows: Sequence[tuple[Row, Any]], columns: Mapping[str, Sequence[Any]]) -> None:
    """Refuse a column that all rows need to have, or none, and that some lack."""
    for name in ("log_normaliser", "top_token"):
        values = columns[name]
        if None in values and values != [None] * len(values):
            (where, _), _ = rows[values.index(None)]
            raise PrunecalError(
                f"{where} has no {name}, which other rows have; give it to every row, or remove "
                "the column"
            )


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
    missing, short, unseen, mass = 0, 0, 0.0, 0.0
    given = []
    for number, ((where, row), question) in enumerate(rows):
        options = list(question["options"])
        own = options if is_missing(row.get("options")) else listed_options(where, row["options"])
        scores = row_scores(where, form, answers.layout.scores_of(row), own)
        values[number, : len(options)] = [scores.values[own.index(option)] for option in options]
        given.append(scores.given)
        absent = int(np.isneginf(scores.values).sum())
        missing += absent
        short += bool(absent)
        mass += scores.mass / len(rows)
        unseen = max(unseen, scores.unseen) if scores.unseen == scores.unseen else math.nan
    refuse_other_scale(answers.path, form, given)
    stored = stored_logits(values)
    logits = [
        one[: len(question["options"])] for one, (_, question) in zip(stored, rows, strict=True)
    ]
    return logits, Told(missing, short, None if math.isnan(unseen) else unseen, mass)


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


def _stated(
    answers: Answers, rows: Sequence[tuple[Row, Mapping[str, Any]]]
) -> tuple[pa.Array, pa.Array]:
    import pyarrow as pa

    predictions, confidences, told = [], [], []
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
        read = label(where, row["prediction"], own, "prediction")
        predictions.append(options.index(own[read]))
        confidences.append(number)
        told.append((row["prediction"], own, read, own.index(options[question["label"]])))
    refuse_predictions_from_one(answers, told)
    return pa.array(predictions, pa.int8()), pa.array(confidences, pa.float64())
