"""Rows of a table, as the stages collect them, and their CSV file."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from prunecal.storage import files

Rows = list[dict[str, Any]]


def write_csv(path: Path, rows: Rows, columns: list[str]) -> None:
    """Write rows as CSV, NaN as nothing; `columns` are there even if no row is."""
    columns = [*columns, *(key for key in (rows[0] if rows else {}) if key not in columns)]
    table = pa.table(
        {
            name: pa.array([row[name] for row in rows], from_pandas=True)
            if rows
            else pa.array([], pa.string())
            for name in columns
        }
    )
    with files.atomic(path) as temporary:
        pyarrow.csv.write_csv(table, temporary)
