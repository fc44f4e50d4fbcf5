"""The tables of a study that are made from its score files alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from prunecal.statistics.calibrated import COLUMNS, calibration_rows
from prunecal.statistics.comparisons import (
    columns,
    comparison_rows,
    detectable_rows,
    have_shares,
    metric_rows,
    parameter_names,
)
from prunecal.statistics.scores import read_scores
from prunecal.statistics.tables import typed_table

if TYPE_CHECKING:
    from pathlib import Path


def aggregates(paths: list[Path], level: float) -> dict[str, pa.Table]:
    """Return the tables metrics, comparisons, detectable and calibration, see `prunecal.compare`.

    Args:
        paths: score files of a study.
        level: of the intervals.

    Raises:
        PrunecalError: a score file is bad, or a parameter is called like a column.
    """
    studied, every = read_scores(paths), read_scores(paths, blind=True)
    parameters, shares = parameter_names(every), have_shares(studied)
    rows = {
        "metrics": [row for scores in every for row in metric_rows(scores, level)],
        "comparisons": [row for scores in studied for row in comparison_rows(scores, level)],
    }
    detectable = [row for scores in studied for row in detectable_rows(scores)]
    calibrated = [row for scores in studied for row in calibration_rows(scores, level)]
    return {
        **{
            name: typed_table(listed, columns(name, parameters, shares=shares))
            for name, listed in rows.items()
        },
        "detectable": pa.Table.from_pylist(detectable),
        "calibration": typed_table(calibrated, COLUMNS),
    }
