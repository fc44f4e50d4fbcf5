"""Contrasts that claims test: one number per case, with its replicates on resampled images."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunecal.calibration.catalogue import metric_name
from prunecal.core.errors import PrunecalError, brief
from prunecal.statistics.bootstrap import interval, normal_interval, widened
from prunecal.statistics.rank_correlation import disattenuated, reliability
from prunecal.statistics.selectors import Measured, Selector, property_of

FEWEST_CELLS = 4  # ranks of fewer say little
LEAST_RELIABILITY = 0.5  # of a metric over cells: below it, differences are mostly noise
SEED = "seed"


@dataclass(frozen=True)
class Contrast:
    """One measured case of a condition.

    Attributes:
        words: what was measured.
        value: on the rows as they are.
        draws: on each resample of images, float64 [R].
        images: number of images that were resampled.
        doubt: why no verdict can rest on it; empty where one can.
    """

    words: str
    value: float
    draws: NDArray
    images: int
    doubt: str = ""

    def interval(self, level: float, cases: int = 1) -> tuple[float, float]:
        """Return the interval of this case alone, or at the strict level of one among `cases`.

        Student's t of the value and the draws' standard deviation, see `widened`. The level of one
        among several cases is 1 - (1 - level) / cases.
        """
        low, high = normal_interval(self.value, self.draws, self._shared(level, cases))
        return float(low), float(high)

    def _shared(self, level: float, tests: int) -> float:
        """Return the level of one among some tests, made up for few images."""
        return widened(1 - (1 - level) / tests, self.images)


@dataclass(frozen=True)
class Curved(Contrast):
    """A number that is no linear function of metrics, so that its draws may lie askew.

    Alone it has the percentile interval. The strict level is beyond what the tails of a few
    thousand draws can tell, so there it is that of any contrast.
    """

    def interval(self, level: float, cases: int = 1) -> tuple[float, float]:
        """Return the interval, see the class."""
        if cases > 1:
            return super().interval(level, cases)
        low, high = interval(self.draws, self._shared(level, 1))
        return float(low), float(high)


@dataclass(frozen=True)
class Range(Contrast):
    """The largest value less the smallest over some cells.

    Its interval holds the ranges that no pair of cells speaks against: the upper end is the largest
    |difference| that any pair allows, the lower end the largest that some pair shows, each pair at
    the level that all pairs share (Bonferroni).

    Attributes:
        table: the value, then the draws of each cell, float64 [cells, 1 + R].
    """

    table: NDArray = field(kw_only=True)

    def interval(self, level: float, cases: int = 1) -> tuple[float, float]:
        """Return the interval of the range, see the class."""
        first, second = np.triu_indices(len(self.table), 1)
        pairs = self.table[first] - self.table[second]
        shared = self._shared(level, cases * len(pairs))
        low, high = normal_interval(pairs[:, 0], pairs[:, 1:], shared)
        shown = np.maximum(np.maximum(low, -high), 0.0)
        return float(shown.max()), float(np.maximum(np.abs(low), np.abs(high)).max())


def differences(
    measured: Measured, metric: str, of: Selector, to: Selector, match: list[str]
) -> Iterator[Contrast]:
    """Yield metric(of) - metric(to) for each cell of `of` and the cell of `to` that matches it.

    Cells match if they agree in the properties of `match`; the unpruned model, which has no other
    budget, matches every cell. Cells of `of` without a match are passed over.

    Raises:
        PrunecalError: several cells of `to` match one cell of `of`.
    """
    table, references = measured.table(metric), measured.select(to)
    for index in measured.select(of):
        cell = measured.cells[index]
        found = [
            other
            for other in references
            if measured.cells[other]["family"] == "full"
            or all(
                property_of(cell, key) == property_of(measured.cells[other], key) for key in match
            )
        ]
        if len(found) > 1:
            names = ", ".join(sorted(measured.cells[other]["strategy"] for other in found))
            raise PrunecalError(
                f"{_name(cell)} can be compared to several cells ({names}); name more properties "
                "in `to` or `match`"
            )
        if found and found[0] != index:
            row = table[index] - table[found[0]]
            words = (
                f"{metric_name(metric)} of {_name(cell)} minus "
                f"{measured.cells[found[0]]['strategy']}"
            )
            doubt = measured.doubt([index, found[0]])
            yield Contrast(words, float(row[0]), row[1:], measured.images, doubt)


def trends(measured: Measured, metric: str, of: Selector, along: str) -> Iterator[Contrast]:
    """Yield per budget the least-squares slope of a metric over a parameter's values.

    Raises:
        PrunecalError: a value is not a number.
    """
    table = measured.table(metric)
    for budget, cells, x in _sweeps(measured, of, along):
        row = x @ table[cells] / (x @ x)
        words = f"slope of {metric_name(metric)} over {along} at {budget} tokens"
        yield Contrast(words, float(row[0]), row[1:], measured.images, measured.doubt(cells))


def ranges(measured: Measured, metric: str, of: Selector, along: str) -> Iterator[Contrast]:
    """Yield per budget the largest less the smallest value of a metric over a parameter's values.

    Raises:
        PrunecalError: a value is not a number.
    """
    table = measured.table(metric)
    for budget, cells, _ in _sweeps(measured, of, along):
        row = np.ptp(table[cells], axis=0)
        words = f"range of {metric_name(metric)} over {along} at {budget} tokens"
        doubt = measured.doubt(cells)
        yield Range(words, float(row[0]), row[1:], measured.images, doubt, table=table[cells])


def _sweeps(
    measured: Measured, of: Selector, along: str
) -> Iterator[tuple[int, list[int], NDArray]]:
    """Yield each budget with at least two values of a parameter: its cells, its centred values."""
    by_budget = defaultdict(list)
    for index in measured.select(of):
        if property_of(measured.cells[index], along) is not None:
            by_budget[measured.cells[index]["budget"]].append(index)
    for budget, cells in sorted(by_budget.items()):
        values = [property_of(measured.cells[i], along) for i in cells]
        if not all(isinstance(value, int | float) for value in values):
            raise PrunecalError(
                f"{brief(along)} has values that are not numbers; name a numeric parameter in "
                "`along`"
            )
        x = np.array(values, dtype=np.float64)
        centred = x - x.mean()
        if centred.any():
            yield budget, cells, centred


def spreads(measured: Measured, metric: str, of: Selector) -> Iterator[Contrast]:
    """Yield how much more a metric varies between strategies than between budgets.

    The variance component of strategies less that of budgets, by the method of moments for a
    two-way layout (MS_strategy - MS_rest) / budgets - (MS_budget - MS_rest) / strategies (Searle,
    Casella and McCulloch, Variance Components, 1992, chapter 4). Noise that is alike in all cells
    drops out of it. Seeds of one strategy are averaged, and only strategies that have every budget
    count; nothing if fewer than two strategies or budgets remain.
    """
    cells = defaultdict(list)
    for index in measured.select(of):
        cell = measured.cells[index]
        cells[unseeded(cell), cell["budget"]].append(index)
    strategies = list(dict.fromkeys(strategy for strategy, _ in cells))
    budgets = sorted({budget for _, budget in cells})
    whole = [one for one in strategies if all((one, budget) in cells for budget in budgets)]
    if len(whole) > 1 and len(budgets) > 1:
        table = measured.table(metric)
        grid = np.stack(
            [[table[cells[one, budget]].mean(axis=0) for budget in budgets] for one in whole]
        )
        row = variance_components(grid)
        words = (
            f"variance of {metric_name(metric)} between {len(whole)} strategies minus its "
            f"variance between {len(budgets)} budgets"
        )
        used = [cell for (one, _), group in cells.items() if one in whole for cell in group]
        yield Curved(words, float(row[0]), row[1:], measured.images, measured.doubt(used))


def variance_components(grid: NDArray) -> NDArray:
    """Return the variance component of rows less that of columns, float64 [R], see `spreads`.

    Args:
        grid: float64 [rows, columns, R].
    """
    rows, columns = grid.shape[:2]
    mean, by_row, by_column = grid.mean(axis=(0, 1)), grid.mean(axis=1), grid.mean(axis=0)
    rest = ((grid - by_row[:, None] - by_column + mean) ** 2).sum(axis=(0, 1))
    rest /= (rows - 1) * (columns - 1)
    of_rows = columns * ((by_row - mean) ** 2).sum(axis=0) / (rows - 1)
    of_columns = rows * ((by_column - mean) ** 2).sum(axis=0) / (columns - 1)
    return (of_rows - rest) / columns - (of_columns - rest) / rows


def correlations(
    measured: Measured, metric: str, of: Selector, near: str, far: str
) -> Iterator[Contrast]:
    """Yield how much more closely a metric follows `near` than `far` over the selected cells.

    The absolute rank correlation (Spearman) with `near` less that with `far`, each divided by the
    square root of that metric's reliability, since the noisier of two metrics correlates less with
    anything (Spearman 1904, correction for attenuation). Where a reliability is below
    `LEAST_RELIABILITY`, no verdict can rest on the difference. Nothing for fewer than four cells,
    or where a metric does not vary.
    """
    cells = measured.select(of)
    if len(cells) < FEWEST_CELLS:
        return
    followed, *others = (measured.table(name)[cells] for name in (metric, near, far))
    if any(np.ptp(table[:, 0]) == 0 for table in (followed, *others)):
        return
    close, distant = (disattenuated(followed, other) for other in others)
    least, name = min(
        (reliability(table)[0], name) for table, name in zip(others, (near, far), strict=True)
    )
    doubt = measured.doubt(cells)
    if least < LEAST_RELIABILITY:
        doubt = f"reliability of {metric_name(name)} over cells {least:.2f}"
    row = close - distant
    words = (
        f"rank correlation of {metric_name(metric)} with {metric_name(near)} minus that with "
        f"{metric_name(far)} over {len(cells)} cells (absolute values, corrected for attenuation)"
    )
    yield Curved(words, float(row[0]), row[1:], measured.images, doubt)


def unseeded(cell: Mapping[str, Any]) -> str:
    """Name a cell's strategy without its seed, so that strategies that differ in it are one."""
    parameters = sorted((k, v) for k, v in cell["parameters"].items() if k != SEED)
    return f"{cell['family']} {parameters}"


def _name(cell: Mapping[str, Any]) -> str:
    return f"{cell['strategy']} at {cell['budget']} tokens"
