"""What a claim measures: one number per case, as it is and on every resample of images."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from prunecal.calibration.catalogue import metric_name
from prunecal.core.errors import PrunecalError, brief, nearest
from prunecal.statistics.scores import Scores

Selector = Mapping[str, Any]


class Contrast(NamedTuple):
    """One measured case of a condition."""

    words: str
    value: float
    draws: NDArray  # float64 [R]


class Measured:
    """Values and draws of one subset of a score file.

    Args:
        scores: a model on a data set.
        subset: index of the subset.
    """

    def __init__(self, scores: Scores, subset: int):
        self.cells = scores.cells
        self._scores, self._subset = scores, subset

    def table(self, metric: str) -> NDArray:
        """Return the value and then the draws of each cell, float64 [cells, 1 + R].

        Raises:
            PrunecalError: the score file has no such metric.
        """
        known = self._scores.facts["metrics"]
        if metric not in known:
            raise PrunecalError(
                f"metric {brief(metric)} is unknown{nearest(metric, known)}; "
                f"known: {', '.join(known)}"
            )
        value = self._scores.value(metric)[:, self._subset, None]
        return np.concatenate([value, self._scores.draws(metric)[:, self._subset]], axis=1)

    def select(self, selector: Selector) -> list[int]:
        """Return the cells that a selector names."""
        return [i for i, cell in enumerate(self.cells) if matches(cell, selector)]


def property_of(cell: Mapping[str, Any], key: str) -> Any:
    """Return a cell's strategy, family, budget or parameter; None if it has no such parameter."""
    return cell[key] if key in ("strategy", "family", "budget") else cell["parameters"].get(key)


def matches(cell: Mapping[str, Any], selector: Selector) -> bool:
    """Tell whether a cell has every property of a selector.

    A property is a value, a list of values, or `{not: value or list}`, which asks for a cell that
    has the property with another value.
    """
    for key, wanted in selector.items():
        found = property_of(cell, key)
        negated = isinstance(wanted, Mapping)
        values = wanted["not"] if negated else wanted
        listed = found in (values if isinstance(values, list) else [values])
        if found is None or listed == negated:
            return False
    return True


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
            yield Contrast(words, float(row[0]), row[1:])


def trends(measured: Measured, metric: str, of: Selector, along: str) -> Iterator[Contrast]:
    """Yield per budget the least-squares slope of a metric over a parameter's values.

    Budgets with fewer than two values of the parameter are passed over.

    Raises:
        PrunecalError: a value is no number.
    """
    table, by_budget = measured.table(metric), defaultdict(list)
    for index in measured.select(of):
        if property_of(measured.cells[index], along) is not None:
            by_budget[measured.cells[index]["budget"]].append(index)
    for budget, cells in sorted(by_budget.items()):
        values = [property_of(measured.cells[i], along) for i in cells]
        if not all(isinstance(value, int | float) for value in values):
            raise PrunecalError(
                f"no slope along {brief(along)} can be measured: its values are no numbers"
            )
        x = np.array(values, dtype=np.float64)
        centred = x - x.mean()
        if centred.any():
            row = centred @ table[cells] / (centred @ centred)
            words = f"slope of {metric_name(metric)} over {along} at {budget} tokens"
            yield Contrast(words, float(row[0]), row[1:])


def spreads(measured: Measured, metric: str, of: Selector) -> Iterator[Contrast]:
    """Yield how much more a metric varies between strategies than between budgets.

    The standard deviation over strategies of the mean over budgets, less that over budgets of the
    mean over strategies, on the strategies that have every budget of the selected cells; nothing if
    fewer than two strategies or budgets remain.
    """
    place = {
        (measured.cells[i]["strategy"], measured.cells[i]["budget"]): i for i in measured.select(of)
    }
    budgets = sorted({budget for _, budget in place})
    names = sorted({name for name, _ in place})
    whole = [name for name in names if all((name, budget) in place for budget in budgets)]
    if len(whole) > 1 and len(budgets) > 1:
        grid = measured.table(metric)[[[place[name, b] for b in budgets] for name in whole]]
        row = grid.mean(axis=1).std(axis=0) - grid.mean(axis=0).std(axis=0)
        words = (
            f"spread of {metric_name(metric)} over {len(whole)} strategies minus its spread over "
            f"{len(budgets)} budgets"
        )
        yield Contrast(words, float(row[0]), row[1:])


def correlations(
    measured: Measured, metric: str, of: Selector, near: str, far: str
) -> Iterator[Contrast]:
    """Yield how much more closely a metric follows `near` than `far` over the selected cells.

    The absolute rank correlation (Spearman) with `near` less that with `far`; nothing for fewer
    than four cells, where ranks say little, or where a metric does not vary.
    """
    cells = measured.select(of)
    if len(cells) >= 4:
        tables = [measured.table(name)[cells] for name in (metric, near, far)]
        if all(np.ptp(table[:, 0]) > 0 for table in tables):
            close, distant = (np.abs(rank_correlation(tables[0], other)) for other in tables[1:])
            row = close - distant
            words = (
                f"rank correlation of {metric_name(metric)} with {metric_name(near)} minus that "
                f"with {metric_name(far)} over {len(cells)} cells (absolute values)"
            )
            yield Contrast(words, float(row[0]), row[1:])


def rank_correlation(x: NDArray, y: NDArray) -> NDArray:
    """Return Spearman's rank correlation of the columns of two [cells, R] tables, float64 [R].

    Ties share their mean rank; NaN where one of the two does not vary.
    """
    x, y = (rankdata(table, axis=0) for table in (x, y))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    scale = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    undefined = np.full(scale.shape, np.nan)
    return np.divide((x * y).sum(axis=0), scale, out=undefined, where=scale > 0)


def _name(cell: Mapping[str, Any]) -> str:
    return f"{cell['strategy']} at {cell['budget']} tokens"
