"""What the data sets about handwritten digits share: settings and canvases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from prunecal.core.parameters import Parameters
from prunecal.datasets import Dataset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prunecal.digits.canvas import Canvas


class Params(Parameters):
    """Settings of the questions about digits."""

    images: int = Field(
        320, ge=1, le=10**6, description="test canvases, each asked about several times"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="seed of canvases and questions")


def made(params: Params, ask: Callable[[int, dict[str, Canvas]], Iterable[dict]]) -> Dataset:
    """Draw canvases from the test scans and ask questions about them.

    Args:
        params: number of canvases and seed.
        ask: returns the questions, as rows of `Dataset.questions`, given the seed and the canvases
            by image id.
    """
    import pandas as pd

    from prunecal.digits.canvas import test_canvases

    canvases = test_canvases(params.seed, params.images)
    images = ((image_id, canvas.png()) for image_id, canvas in canvases.items())
    rows = list(ask(params.seed, canvases))
    return Dataset(pd.DataFrame(rows), images, f"made from scikit-learn digits, seed {params.seed}")
