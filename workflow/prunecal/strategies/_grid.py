"""A budget's own grid over an image: as many cells as tokens."""

from __future__ import annotations

from math import ceil, isqrt, sqrt
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecal.strategies import Images


class Cell(NamedTuple):
    """A part of a grid of patches.

    Attributes:
        first: index of the grid's first patch among the image's.
        rows: patches along the height of the grid.
        columns: patches in a row of it.
        top: of the cell, in patches from the grid's upper edge.
        bottom: likewise.
        left: likewise, from its left edge.
        right: likewise.
    """

    first: int
    rows: int
    columns: int
    top: float
    bottom: float
    left: float
    right: float


def cells(images: Images, budget: int) -> list[Cell]:
    """Divide the images' grids into as many cells as the budget, of about equal size and shape.

    Grids of several tiles share the budget by their patches. Cells form rows of equal height, of
    which the first have one more cell if that is needed. No side is shorter than a patch, so that
    every cell has a patch of its own.

    Args:
        images: whose patches are a square, or one row if that is not possible, unless they have
            `grids`.
        budget: cells, 1 to the number of patches.

    Returns:
        The cells of each grid in raster order.
    """
    tokens = images.features.shape[1]
    side = isqrt(tokens)
    square = ((side, side),) if side * side == tokens else ((1, tokens),)
    grids = images.grids or square
    listed: list[Cell] = []
    first = 0
    sizes = [rows * columns for rows, columns in grids]
    for (rows, columns), count in zip(grids, shares(sizes, budget), strict=True):
        listed += _cells(first, rows, columns, count)
        first += rows * columns
    return listed


def shares(sizes: Sequence[int], budget: int) -> list[int]:
    """Divide a budget in proportion to sizes; what is left goes to the largest remainders."""
    whole = sum(sizes)
    counts = [budget * size // whole for size in sizes]
    rest = [budget * size % whole for size in sizes]
    largest = sorted(range(len(sizes)), key=lambda at: -rest[at])  # the first of equal ones
    for at in largest[: budget - sum(counts)]:
        counts[at] += 1
    return counts


def _cells(first: int, height: int, width: int, budget: int) -> list[Cell]:
    if not budget:
        return []
    rows = min(height, max(1, round(sqrt(budget * height / width)), ceil(budget / width)))
    fewest, more = divmod(budget, rows)
    listed = []
    for row in range(rows):
        across = fewest + (row < more)
        top, bottom = height * row / rows, height * (row + 1) / rows
        listed += [
            Cell(first, height, width, top, bottom, width * at / across, width * (at + 1) / across)
            for at in range(across)
        ]
    return listed
