"""The columns of predictions.parquet, from what the engine read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from prunecal.storage import held_patches
from prunecal.study.short_answers import is_accepted

if TYPE_CHECKING:
    import pandas as pd

    from prunecal.engine.answers import Answers
    from prunecal.engine.greedy import ShortAnswers

NUMBERS = pa.list_(pa.float32())


def table(questions: pd.DataFrame, answers: Answers) -> pa.Table:
    """Return a cell's predictions.

    Args:
        questions: the data set's, with the column answers if they are short.
        answers: to them, in their order.
    """
    short = answers.short
    first, more = _of_logits(answers) if short is None else _of_texts(short, questions)
    return pa.table(
        {
            "question_id": pa.array(questions["question_id"], pa.string()),
            "image_id": pa.array(questions["image_id"], pa.string()),
            "subset": pa.array(questions["subset"], pa.string()),
            "options": pa.array(questions["options"], pa.list_(pa.string())),
            "label": pa.array(questions["label"], pa.int8()),
            **first,
            "n_visual": pa.array(answers.n_visual, pa.int32()),
            "coverage": pa.array(answers.coverage, pa.float32()),
            **more,
            **_of_patches(answers),
        }
    )


def _of_patches(answers: Answers) -> dict[str, Any]:
    """Return the columns of patches that are left after the last stage inside the decoder."""
    columns = {held_patches.KEPT: answers.kept_patches, held_patches.MERGED: answers.merged_patches}
    return {
        name: pa.array(patches, pa.list_(pa.int16()))
        for name, patches in columns.items()
        if patches is not None
    }


def _of_logits(answers: Answers) -> tuple[dict[str, Any], dict[str, Any]]:
    first = {
        "logits": pa.array(answers.logits, NUMBERS),
        "log_normaliser": pa.array(answers.log_normaliser, pa.float32()),
        "top_token": pa.array(answers.top_token, pa.int32()),
    }
    further = {  # readings that not every family and data set has
        "spelling_logits": answers.spelling_logits,
        "letter_logits": answers.letter_logits,
    }
    return first, {
        name: pa.array(list(values), NUMBERS)
        for name, values in further.items()
        if values is not None
    }


def _of_texts(
    short: ShortAnswers, questions: pd.DataFrame
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the columns of logits, which hold nothing, and those of short answers."""
    rows = len(questions)
    accepted = map(is_accepted, short.texts, questions["answers"])
    return {
        "logits": pa.nulls(rows, NUMBERS),
        "log_normaliser": pa.nulls(rows, pa.float32()),
        "top_token": pa.nulls(rows, pa.int32()),
    }, {
        "prediction": pa.array([0 if right else 1 for right in accepted], pa.int8()),
        "confidence": pa.array(short.confidence, pa.float64()),
        "answer": pa.array(short.texts, pa.string()),
        "answer_tokens": pa.array(short.tokens, pa.int32()),
        "finished": pa.array(short.finished, pa.bool_()),
    }
