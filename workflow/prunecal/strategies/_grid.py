"""A budget's own grid over an image: as many cells as tokens."""

from __future__ import annotations

from math import isqrt, sqrt


def cells(tokens: int, budget: int) -> list[tuple[float, float, float, float]]:
    """Divide a grid of patches into as many cells as the budget, of about equal size and shape.

    Args:
        tokens: patches, a square grid, or one row if that is not possible.
        budget: cells, 1 to the number of patches.

    Returns:
        top, bottom, left and right of each cell in patches, in raster order. Cells form rows of
        equal height, of which the first have one more cell if that is needed. No side is shorter
        than a patch, so that every cell has a patch of its own.
    """
    side = isqrt(tokens)
    height, width = (side, side) if side * side == tokens else (1, tokens)
    rows = min(height, max(1, round(sqrt(budget * height / width))))
    fewest, more = divmod(budget, rows)
    listed = []
    for row in range(rows):
        across = fewest + (row < more)
        top, bottom = height * row / rows, height * (row + 1) / rows
        listed += [
            (top, bottom, width * at / across, width * (at + 1) / across) for at in range(across)
        ]
    return listed


def width(tokens: int) -> int:
    """Return the patches in a row of the grid that `cells` divides."""
    side = isqrt(tokens)
    return side if side * side == tokens else tokens
