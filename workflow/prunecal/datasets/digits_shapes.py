"""Polls about handwritten digits on pictures of two shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from prunecal.datasets import Dataset, _digits

if TYPE_CHECKING:
    from prunecal.digits.canvas import Canvas

LABEL = "Digits-POPE of two shapes"
FEWEST = 2  # different digits on a picture: with fewer there is no poll about both of two


class Params(_digits.Params):
    """Settings of the questions about digits on pictures of two shapes."""

    rows: int = Field(
        6, ge=1, le=10, description="rows of patches of every other canvas; the rest is cut off"
    )


def load(params: Params) -> Dataset:
    """Ask six polls per canvas and subset; a canvas is not cut where that leaves one digit."""
    import pandas as pd

    from prunecal.datasets.digits_pope import rows_of
    from prunecal.digits.canvas import test_canvases

    canvases = {
        image_id: _cut(canvas, params.rows) if number % 2 else canvas
        for number, (image_id, canvas) in enumerate(
            test_canvases(params.seed, params.images).items()
        )
    }
    images = ((image_id, canvas.png()) for image_id, canvas in canvases.items())
    rows = list(rows_of(params.seed, canvases))
    return Dataset(pd.DataFrame(rows), images, f"made from scikit-learn digits, seed {params.seed}")


def _cut(canvas: Canvas, rows: int) -> Canvas:
    """Return the first rows of patches of a canvas, with the digits whose centre lies in them."""
    from prunecal.digits.canvas import GRID, PATCH, Canvas

    digits = tuple(digit for digit in canvas.digits if digit.patch // GRID < rows)
    cut = Canvas(canvas.pixels[: rows * PATCH], digits)
    return cut if len(cut.present) >= FEWEST else canvas
