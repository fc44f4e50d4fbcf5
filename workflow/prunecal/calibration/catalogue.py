"""The catalogue of metrics: what each is called, what it means, and which function computes it.

Every table, figure and page learns of a metric from here; how each is computed is in
`prunecal.calibration.metrics`, imported when it is first asked for, so that this file stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.calibration.entries import (
    answers,
    errors,
    proper,
    readouts,
    recalibrated,
    selective,
    tokens,
)
from prunecal.calibration.metric import Metric
from prunecal.core.errors import PrunecalError, brief, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable

CATALOGUE: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        *answers.ENTRIES,
        *errors.ENTRIES,
        *recalibrated.ENTRIES,
        *proper.ENTRIES,
        *selective.ENTRIES,
        *readouts.ENTRIES,
        *tokens.ENTRIES,
    )
}


def catalogued(key: str) -> Metric:
    """Return a metric; one that the catalogue does not have is like a mean, its key in words."""
    return CATALOGUE.get(key) or Metric(key, key.replace("_", " "), "")


def refuse_unknown(keys: Iterable[str]) -> None:
    """Refuse the key of a metric that the catalogue does not have.

    Raises:
        PrunecalError: names it and the nearest one.
    """
    for key in keys:
        if key not in CATALOGUE:
            raise PrunecalError(
                f"metric {brief(key)} is unknown{nearest(key, list(CATALOGUE))}; the report's page "
                '"Definitions" has all metrics'
            )


def metric_name(key: str) -> str:
    """Return a metric's label, or its key in words if the catalogue does not have it."""
    return catalogued(key).label
