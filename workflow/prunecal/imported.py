"""Stage "imported": cells whose answers come from elsewhere, and the questions that they answer.

With `--make-questions` it writes the questions of a data set that no loader reads, from the rows of
one cell; else the predictions of all imported cells of a model on a data set, compared with its
questions, each with its provenance.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecal import datasets
from prunecal.caching import lineage
from prunecal.caching.fingerprint import source_digest
from prunecal.core import cli
from prunecal.datasets._answers import is_missing
from prunecal.imports import cells
from prunecal.imports.answers import OF_OPTIONS, Files, parameters_of
from prunecal.imports.questions import checked
from prunecal.statistics.predictions import IMPORTED
from prunecal.storage import files
from prunecal.storage.checksums import file_digest
from prunecal.storage.schemas import STATED
from prunecal.study import budgets
from prunecal.study.cells import imported_cell
from prunecal.study.data_settings import Imported

if TYPE_CHECKING:
    import pandas as pd


def main(arguments: argparse.Namespace) -> None:
    """Write the questions, or the cells."""
    entries = [Imported(**entry) for entry in json.loads(arguments.cells)]
    read = Files()
    if arguments.make_questions:
        _write_questions(arguments.make_questions, read, entries[0])
        return
    names = [*datasets.COLUMNS]
    questions = files.read_table(arguments.questions, names).to_pandas()
    revision = files.read_facts(arguments.questions)["revision"]
    for entry in entries:
        _write_cell(arguments, read, entry, questions, revision)


def _write_questions(path: Path, read: Files, entry: Imported) -> None:
    import pyarrow as pa

    answers = read.answers(entry)
    questions = checked(entry, answers)
    types = {"options": pa.list_(pa.string()), "label": pa.int8()}
    table = pa.table(
        {
            name: pa.array(questions[name].tolist(), types.get(name, pa.string()))
            for name in datasets.COLUMNS
        }
    )
    facts = {
        "dataset": entry.dataset,
        "loader": IMPORTED,
        "revision": f"sha256:{file_digest(answers.path)}",
    }
    files.write_table(path, table, facts)
    cli.log.info("%s: %d questions", entry.dataset, len(questions))


def _write_cell(
    arguments: argparse.Namespace,
    read: Files,
    entry: Imported,
    questions: pd.DataFrame,
    revision: str,
) -> None:
    answers, cell = read.answers(entry), imported_cell(entry)
    stated = entry.confidence is not None
    table, told = cells.table(answers, questions, cell.budget, stated=stated)
    origin: dict[str, Any] = {
        "scores": STATED if stated else answers.layout.form,
        STATED: entry.confidence,
        "missing_options": told.missing,
        "rows_with_missing": told.rows,
        "unseen": told.unseen,
    }
    if told.missing:
        bound = "without bound" if told.unseen is None else f"at most {told.unseen:.3g} in a row"
        cli.log.warning(
            "%s: %d options of %d of %d rows have no score and count as impossible; what they "
            "could have of the probability: %s",
            answers.path,
            told.missing,
            told.rows,
            len(questions),
            bound,
        )
    if told.mass < cells.WHOLE:
        cli.log.info(
            "%s: options have %.3g of the probability on average; confidence is the share of that",
            answers.path,
            told.mass,
        )
    facts = {
        "cell": {"model": entry.model, "dataset": entry.dataset, **cell.settings()},
        "seed": _seed(cell.settings()["parameters"]),
        "dataset_revision": revision,
        "visual_tokens": entry.visual_tokens,
        "tokens_per_layer": entry.tokens_per_layer,
        IMPORTED: origin,
    }
    first = answers.rows[0][1]
    facts |= {
        name: parameters_of(first[name]) for name in OF_OPTIONS if not is_missing(first.get(name))
    }
    folder = arguments.folder / cell.strategy / budgets.folder(cell.budget)
    path = folder / "predictions.parquet"
    files.write_table(path, table, facts)
    made_from = {
        arguments.questions.name: file_digest(arguments.questions),
        lineage.FILE: file_digest(answers.path),
        lineage.CODE: source_digest(lineage.IMPORTED_CELLS),
    }
    provenance = {
        lineage.MADE_FROM: made_from,
        lineage.PREDICTIONS: file_digest(path),
        IMPORTED: {"file": answers.path.name, **origin},
    }
    files.write_json(folder / "provenance.json", provenance)


def _seed(parameters: dict[str, Any]) -> int | None:
    seed = parameters.get("seed")
    return seed if isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 else None


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the stage's command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("--cells", required=True, help="JSON: entries of `imported:`")
    parser.add_argument("--questions", type=Path, help="questions.parquet of the data set")
    parser.add_argument("--folder", type=Path, help="folder of the model on the data set")
    parser.add_argument("--make-questions", type=Path, help="questions.parquet to write")
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
