"""Polls about handwritten digits: POPE's form on images that are made here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from prunecal.datasets import Dataset
from prunecal.parameters import Parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

LABEL = "Digits-POPE"


class Params(Parameters):
    """Settings of the polls about digits."""

    images: int = Field(320, ge=1, description="test canvases, each with twelve distinct polls")
    seed: int = Field(0, ge=0, description="seed of canvases and questions")


def load(params: Params) -> Dataset:
    """Make canvases from the test scans and poll each one six times per subset."""
    import pandas as pd

    from prunecal.digits import test_canvases

    canvases = test_canvases(params.seed, params.images)
    images = ((image_id, canvas.png()) for image_id, canvas in canvases.items())
    rows = list(_rows(params, canvases))
    return Dataset(pd.DataFrame(rows), images, f"made from scikit-learn digits, seed {params.seed}")


def _rows(params: Params, canvases: dict) -> Iterator[dict]:
    from prunecal.digits import stream
    from prunecal.digits_polls import CATEGORIES, OPTIONS, SUBSETS, Census, choose, truth

    holds = truth(list(canvases.values()))
    census = Census.of(holds)
    for index, image_id in enumerate(canvases):
        yes, no = choose(holds[index], census, stream("test", params.seed, index, "polls"))
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
