"""Polls about handwritten digits, in the form of POPE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.datasets import _digits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prunecal.datasets import Dataset
    from prunecal.digits.canvas import Canvas

LABEL = "Digits-POPE"
Params = _digits.Params


def load(params: Params) -> Dataset:
    """Ask six polls per canvas and subset, twelve of them distinct."""
    return _digits.made(params, rows_of)


def rows_of(seed: int, canvases: dict[str, Canvas]) -> Iterator[dict]:
    """Return the questions about canvases, as rows of `Dataset.questions`."""
    from prunecal.digits.canvas import stream
    from prunecal.digits.polls import CATEGORIES, OPTIONS, SUBSETS, Census, choose, truth

    holds = truth(list(canvases.values()))
    census = Census.of(holds)
    for index, image_id in enumerate(canvases):
        yes, no = choose(holds[index], census, stream("test", seed, index, "polls"))
        for subset in SUBSETS:
            polls = [(category, 0) for category in yes] + [(category, 1) for category in no[subset]]
            for number, (category, label) in enumerate(polls):
                yield {
                    "question_id": f"{image_id}-{subset}-{number}",
                    "image_id": image_id,
                    "subset": subset,
                    "text": CATEGORIES[category].text,
                    "options": list(OPTIONS),
                    "label": label,
                }
