"""Multiple choice about handwritten digits: ScienceQA's form on images that are made here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from prunecal.datasets import Dataset
from prunecal.parameters import Parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

LABEL = "Digits-SQA"


class Params(Parameters):
    """Settings of the multiple-choice questions about digits."""

    images: int = Field(320, ge=1, description="test canvases, each with a question per subject")
    seed: int = Field(0, ge=0, description="seed of canvases and questions")


def load(params: Params) -> Dataset:
    """Make canvases from the test scans and ask one question of each subject about each."""
    import pandas as pd

    from prunecal.digits import test_canvases

    canvases = test_canvases(params.seed, params.images)
    images = ((image_id, canvas.png()) for image_id, canvas in canvases.items())
    rows = list(_rows(params, canvases))
    return Dataset(pd.DataFrame(rows), images, f"made from scikit-learn digits, seed {params.seed}")


def _rows(params: Params, canvases: dict) -> Iterator[dict]:
    from prunecal.digits import stream
    from prunecal.digits_choices import QUESTIONS, ask

    for index, (image_id, canvas) in enumerate(canvases.items()):
        for subject in QUESTIONS:
            question = ask(subject, canvas, stream("test", params.seed, index, subject))
            yield {
                "question_id": f"{image_id}-{subject}",
                "image_id": image_id,
                "subset": subject,
                "text": question.text,
                "options": list(question.options),
                "label": question.label,
            }
