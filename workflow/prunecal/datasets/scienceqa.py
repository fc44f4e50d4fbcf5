"""ScienceQA-IMG: multiple-choice school questions about an image (arXiv 2209.09513)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from prunecal.datasets import Dataset, check_choices
from prunecal.datasets._parquet import IMAGE, Source, find, rows
from prunecal.datasets._wording import Worded
from prunecal.storage.schemas import TEXT, TEXTS, WHOLE
from prunecal.study.prompts import LETTERS, scienceqa_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LABEL = "ScienceQA-IMG"
COLUMNS = {
    "image": IMAGE,
    "question": TEXT,
    "choices": TEXTS,
    "answer": WHOLE,
    "hint": TEXT,
    "subject": TEXT,
}


class Params(Source, Worded):
    """Where ScienceQA comes from: the Hub, or a local folder in its layout."""

    REPO = "derek-thomas/ScienceQA"
    REVISION = "f18b0a70359ebfb41f658fd564208d0355b013f4"


def load(params: Params) -> Dataset:
    """Read the questions of a split that have an image, with two to five lettered choices.

    The image id is a digest of the image's bytes, so that questions on the same image are one
    cluster; the question id holds the row's number in the split, images or not.

    Raises:
        PrunecalError: the Hub or the folder does not give the files, or a row is damaged or has two
            equal choices.
    """
    import pandas as pd

    files, revision = find(params)
    records = []
    for number, row in enumerate(rows(files, COLUMNS)):
        if row["image"] is None:
            continue
        question_id = f"row-{number}"
        check_choices(f"{files[0].parent}: question {question_id!r}", row["choices"])
        records.append(
            {
                "question_id": question_id,
                "image_id": _image_id(row["image"]),
                "subset": row["subject"],
                "text": _text(params, row["question"], row["choices"], row["hint"] or ""),
                "options": list(LETTERS[: len(row["choices"])]),
                "label": row["answer"],
            }
        )
    return Dataset(pd.DataFrame(records), _images(files), revision)


def _text(params: Params, question: str, choices: list[str], hint: str) -> str:
    text = scienceqa_text(question, choices, hint)  # refuses choices without a letter
    return text if params.wording == "llava" else params.choices(question, choices, hint)


def _image_id(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _images(files: list[Path]) -> Iterator[tuple[str, bytes]]:
    seen = set()
    for row in rows(files, {"image": IMAGE}):
        if row["image"] is not None and (image_id := _image_id(row["image"])) not in seen:
            seen.add(image_id)
            yield image_id, row["image"]
