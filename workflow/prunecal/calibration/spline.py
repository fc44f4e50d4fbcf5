"""Cubic splines through many curves on one grid, each asked for in one interval alone.

The coefficients are those of `scipy.interpolate.CubicSpline` with its ends "not-a-knot", to the
last bit (a test compares), in less time: the tridiagonal system is the same for all curves, so it
is factorised once and solved row by row over all of them.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dgttrf


class Spline:
    """The system of equations of a grid.

    Args:
        grid: float64 [n], ascending, nearly even, n > 3.

    Raises:
        ValueError: the grid is so uneven that its equations would change their order.
    """

    def __init__(self, grid: NDArray) -> None:
        self._step = step = np.diff(grid)
        self._first, self._last = grid[2] - grid[0], grid[-1] - grid[-3]
        lower = np.append(step[1:], self._last)
        diagonal = np.concatenate([step[1:2], 2 * (step[:-1] + step[1:]), step[-2:-1]])
        upper = np.insert(step[:-1], 0, self._first)
        self._lower, self._diagonal, self._upper, _, pivot, _ = dgttrf(lower, diagonal, upper)
        if (pivot != np.arange(1, len(grid) + 1)).any():
            raise ValueError("the grid is too uneven for a spline without exchange of rows")

    def coefficients(self, curve: NDArray, left: NDArray) -> tuple[NDArray, ...]:
        """Return cubic, square, linear and constant coefficient of each curve, float64 [R] each.

        Args:
            curve: values at the grid's points, float64 [n, R].
            left: the point at which the interval begins that is asked for, int [R].
        """
        step, number = self._step[:, None], np.arange(curve.shape[1])
        rise = np.diff(curve, axis=0) / step
        slope = np.empty_like(curve)
        slope[1:-1] = 3 * (step[1:] * rise[:-1] + step[:-1] * rise[1:])
        wide = self._first
        slope[0] = (step[0] + 2 * wide) * step[1] * rise[0] + step[0] ** 2 * rise[1]
        slope[0] /= wide
        wide = self._last
        slope[-1] = step[-1] ** 2 * rise[-2] + (2 * wide + step[-1]) * step[-2] * rise[-1]
        slope[-1] /= wide
        for above, row, factor in zip(slope[:-1], slope[1:], self._lower, strict=True):
            row -= factor * above
        slope[-1] /= self._diagonal[-1]
        backwards = slope[::-1], self._upper[::-1], self._diagonal[-2::-1]
        for below, row, factor, scale in zip(
            backwards[0][:-1], backwards[0][1:], *backwards[1:], strict=True
        ):
            row -= factor * below
            row /= scale
        begin, end = slope[left, number], slope[left + 1, number]
        mean, width = rise[left, number], self._step[left]
        bend = (begin + end - 2 * mean) / width
        return bend / width, (mean - begin) / width - bend, begin, curve[left, number]
