"""Imported cells that are not what the files of answers hold now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prunecal import datasets
from prunecal.caching import lineage
from prunecal.caching.cell_store import FILES as CELL_FILES
from prunecal.caching.lineage import Foreign
from prunecal.core import cli
from prunecal.core.errors import PrunecalError
from prunecal.core.redaction import expanded
from prunecal.imports import cells
from prunecal.imports.answers import Files
from prunecal.storage import files
from prunecal.storage.checksums import file_digest
from prunecal.study import budgets
from prunecal.study.cells import imported_cell

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    import pyarrow as pa

    from prunecal.study.data_settings import Imported
    from prunecal.study.settings import Study


def other_answers(
    results: Path,
    study: Study,
    damaged: Collection[Path],
    difference: Callable[[pa.ChunkedArray, pa.ChunkedArray], int | None],
) -> Iterator[Foreign]:
    """Yield the imported cells whose files of answers have changed, or which hold other answers.

    Args:
        results: folder of all results.
        study: names the files.
        damaged: files about which nothing can be said.
        difference: returns the first row in which two columns differ, if any.
    """
    bad, read = set(damaged), Files()
    named = {entry.file: expanded(Path(entry.file)) for entry in study.imported}
    now = {name: file_digest(path) for name, path in named.items() if path.is_file()}
    for name in sorted(named.keys() - now):
        cli.log.info("the cells of %s are not checked: it is not there", name)
    for entry in study.imported:
        cell = imported_cell(entry)
        place = results / entry.model / entry.dataset / cell.strategy / budgets.folder(cell.budget)
        predictions, provenance = (place / name for name in CELL_FILES)
        questions = results / "datasets" / entry.dataset / "questions.parquet"
        if entry.file not in now or {predictions, provenance, questions} & bad:
            continue
        if not all(path.is_file() for path in (predictions, provenance)):
            continue
        made_from = files.read_object(provenance).get(lineage.MADE_FROM, {})
        if made_from.get(lineage.FILE) != now[entry.file]:
            yield Foreign(predictions, f"from other answers than {entry.file} holds now")
        elif questions.is_file():
            try:
                reason = _other(predictions, questions, read, entry, difference)
            except PrunecalError as error:
                reason = f"from answers that this checkout refuses: {error}"
            if reason:
                yield Foreign(predictions, reason)


def _other(
    predictions: Path,
    questions: Path,
    read: Files,
    entry: Imported,
    difference: Callable[[pa.ChunkedArray, pa.ChunkedArray], int | None],
) -> str | None:
    """Say which value of a cell is not that of its file of answers, if any."""
    asked = files.read_table(questions, [*datasets.COLUMNS]).to_pandas()
    budget, stated = imported_cell(entry).budget, entry.confidence is not None
    table, _ = cells.table(read.answers(entry), asked, budget, stated=stated)
    stored = files.read_table(predictions)
    if stored.column_names != table.column_names or len(stored) != len(table):
        return f"with other rows or columns than {entry.file} gives"
    for name in table.column_names:
        row = difference(stored[name], table[name])
        if row is not None:
            question = stored["question_id"][row].as_py()
            return f"with another {name} of question {question!r} than {entry.file} gives"
    return None
