"""Select the cells of a score file by strategy, strategy family, budget or parameter."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunecal.core.errors import PrunecalError, brief, nearest
from prunecal.statistics.scores import Scores

Selector = Mapping[str, Any]


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
