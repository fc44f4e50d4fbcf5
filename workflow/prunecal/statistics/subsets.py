"""Subsets of a data set's questions, as rows of its predictions."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunecal.core.errors import PrunecalError
from prunecal.statistics.predictions import Cell
from prunecal.storage import files

POOLED, DISTINCT = "all", "unique"
OUTCOME = "chosen by outcome"  # begins the names of subsets of what a cell answers, right or wrong


def subsets(
    rows: dict[str, list[Any]], questions: Path | None, split_by: Cell | None = None
) -> dict[str, NDArray]:
    """Return the indices of each subset's rows: the data set's own, "all" and "unique".

    Args:
        rows: as in `Cell`.
        questions: questions.parquet, which tells which (image, question) pairs are the same.
            Without it, or where no pair is there twice, there is no "unique".
        split_by: a cell; its right and its wrong answers are two more subsets, if it has both.

    Raises:
        PrunecalError: a subset has a reserved name, or a question is not in the file.
    """
    labels = np.array(rows["subset"])
    names = list(dict.fromkeys(rows["subset"]))
    for name in names:
        if name in (POOLED, DISTINCT) or name.startswith(OUTCOME):
            raise PrunecalError(f"the subset name {name!r} is reserved; rename the subset")
    indices = {name: np.flatnonzero(labels == name) for name in names}
    indices[POOLED] = np.arange(len(labels))
    if questions is not None and len(distinct := _distinct(rows, questions)) < len(labels):
        indices[DISTINCT] = distinct
    if split_by is not None and len(set(split_by.correct)) > 1:
        which = f"{OUTCOME}: {split_by.facts['strategy']} at {split_by.facts['budget']}"
        indices[f"{which} right"] = np.flatnonzero(split_by.correct)
        indices[f"{which} wrong"] = np.flatnonzero(~split_by.correct)
    return indices


def _distinct(rows: dict[str, list[Any]], questions: Path) -> NDArray:
    """Return the first row of each (image, text, options)."""
    table = files.read_table(questions, ["question_id", "text"]).to_pydict()
    text = dict(zip(table["question_id"], table["text"], strict=True))
    first: dict[Any, int] = {}
    columns = zip(rows["question_id"], rows["image_id"], rows["options"], strict=True)
    for index, (question, image, options) in enumerate(columns):
        if question not in text:
            raise PrunecalError(
                f"{questions} lacks question {question!r}, which has predictions; delete "
                "the predictions and run snakemake again"
            )
        first.setdefault((image, text[question], tuple(options)), index)
    return np.array(list(first.values()))
