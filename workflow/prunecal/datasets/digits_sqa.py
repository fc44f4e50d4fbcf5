"""Multiple choice about handwritten digits: ScienceQA's form on images that are made here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.datasets import _digits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prunecal.datasets import Dataset
    from prunecal.digits.canvas import Canvas

LABEL = "Digits-SQA"
Params = _digits.Params


def load(params: Params) -> Dataset:
    """Ask one question of each subject about each canvas."""
    return _digits.made(params, _rows)


def _rows(seed: int, canvases: dict[str, Canvas]) -> Iterator[dict]:
    from prunecal.digits.canvas import stream
    from prunecal.digits.choices import QUESTIONS, ask

    for index, (image_id, canvas) in enumerate(canvases.items()):
        for subject in QUESTIONS:
            question = ask(subject, canvas, stream("test", seed, index, subject))
            yield {
                "question_id": f"{image_id}-{subject}",
                "image_id": image_id,
                "subset": subject,
                "text": question.text,
                "options": list(question.options),
                "label": question.label,
            }
