"""Tables from rows, as the stages collect them, and their CSV files."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from prunecal.storage import files

Rows = list[dict[str, Any]]
NAMES = ("model", "dataset", "subset", "strategy", "family", "metric")  # texts
COUNTS = ("n", "n_images", "budget", "bins_filled")


def write_csv(path: Path, rows: Rows, columns: list[str], sources: Iterable[Path] = ()) -> None:
    """Write rows as CSV, NaN as nothing; `columns` are there even if no row is.

    `sources` are the files that it was made from.
    """
    columns = [*columns, *(key for key in (rows[0] if rows else {}) if key not in columns)]
    table = pa.table(
        {
            name: pa.array([row[name] for row in rows], from_pandas=True)
            if rows
            else pa.array([], pa.string())
            for name in columns
        }
    )
    write_table_csv(path, table, sources)


def write_table_csv(path: Path, table: pa.Table, sources: Iterable[Path] = ()) -> None:
    """Write a table as CSV; `sources` are the files that it was made from."""
    with files.atomic(path, sources) as temporary:
        pyarrow.csv.write_csv(table, temporary)


def typed_table(rows: Rows, columns: list[str]) -> pa.Table:
    """Return rows as a table with exactly these columns; what a row lacks is null, as is NaN.

    Counts are int64. In other columns whole numbers join fractions, and other mixtures are text.
    """
    return pa.table({name: _column([row.get(name) for row in rows], name) for name in columns})


def _column(values: list[Any], name: str) -> pa.Array:
    if name in NAMES:
        return pa.array(values, pa.string())
    if name in COUNTS:
        return pa.array(values, pa.int64())
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float, np.float64} and kinds != {int}:
        return pa.array(values, pa.float64(), from_pandas=True)
    if len(kinds) > 1 or kinds & {list, dict}:
        values = [None if value is None else files.canonical_json(value) for value in values]
    return pa.array(values)
