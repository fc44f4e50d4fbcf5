"""Select the cells of a score file by strategy, strategy family, budget or parameter."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunecal.core.errors import PrunecalError, brief, nearest
from prunecal.statistics.scores import REFERENCE, Scores

ANSWER_RATES = ("answer_rate_spellings", "answer_rate")  # the first that a cell has
ANSWERING = 0.9  # of the unpruned model's answer rate; below it, a cell has stopped answering
Selector = Mapping[str, Any]


class Measured:
    """Values and draws of one subset of a score file.

    Args:
        scores: a model on a data set.
        subset: index of the subset.
        readout: how confidence is read (`calibration.constants.READOUTS`); a metric that does not
            exist under that readout is taken from the record.
    """

    def __init__(self, scores: Scores, subset: int, readout: str = ""):
        self.cells = scores.cells
        self.images: int = scores.subsets[subset]["n_images"]
        self._scores, self._subset, self._readout = scores, subset, readout
        self._silent = {} if readout else silent_cells(scores, subset)

    def table(self, metric: str) -> NDArray:
        """Return the value and then the draws of each cell, float64 [cells, 1 + R].

        Raises:
            PrunecalError: the score file has no such metric.
        """
        known = self._scores.facts["metrics"]
        if f"{metric}_{self._readout}" in known:
            metric = f"{metric}_{self._readout}"
        if metric not in known:
            raise PrunecalError(
                f"metric {brief(metric)} is unknown{nearest(metric, known)}; "
                f"known: {', '.join(known)}"
            )
        value = self._scores.value(metric)[:, self._subset, None]
        return np.concatenate([value, self._scores.draws(metric)[:, self._subset]], axis=1)

    def doubt(self, cells: Iterable[int]) -> str:
        """Say which of some cells stopped answering; empty if none did."""
        silent = [self._silent[cell] for cell in cells if cell in self._silent]
        more = f"; {len(silent) - 1} more like it" if len(silent) > 1 else ""
        return f"{silent[0]}{more}" if silent else ""

    def select(self, selector: Selector) -> list[int]:
        """Return the cells that a selector names."""
        return [i for i, cell in enumerate(self.cells) if matches(cell, selector)]


def silent_cells(scores: Scores, subset: int) -> dict[int, str]:
    """Say of each cell that stops answering how often it answers with an option, by its index.

    Pruning stopped the model where its answer rate, with an option's spellings if they are known,
    is below `ANSWERING` of the unpruned model's.
    """
    known = [name for name in ANSWER_RATES if name in scores.facts["metrics"]]
    if not known or REFERENCE not in [cell["family"] for cell in scores.cells]:
        return {}
    rate = scores.value(known[0])[:, subset]
    before = rate[scores.reference]
    return {
        at: f"{cell['strategy']} at {cell['budget']} tokens answers {100 * rate[at]:.0f} % of the "
        f"questions with one of their options, the unpruned model {100 * before:.0f} %"
        for at, cell in enumerate(scores.cells)
        if rate[at] < ANSWERING * before
    }


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
