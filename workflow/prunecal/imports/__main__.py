"""Write the study of files of answers: which cells they hold, ready for snakemake.

Columns of a file, or else options of this command, say of which model, data set, strategy and
budget its answers are; see docs/import-answers.md. A file may also be predictions.parquet of
another study.
"""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecal.core import cli
from prunecal.core.errors import PrunecalError, counted, cut
from prunecal.datasets._answers import is_missing
from prunecal.imports.answers import DETAILS, NAMES, Files, Layout, budget_of, parameters_of
from prunecal.imports.cells import WHOLE, table
from prunecal.imports.option_scores import number_of
from prunecal.imports.questions import checked, refuse_flags
from prunecal.storage import files
from prunecal.study.cells import imported_cell, load_study
from prunecal.study.design import Design

if TYPE_CHECKING:
    import pandas as pd

    from prunecal.study.settings import Study

MANY = 500  # cells
EMPTY = ("models", "datasets", "strategies", "budgets")  # in a study of imported cells alone
WRITTEN = ("title", "study", *EMPTY, "imported")
SNAKEFILE = Path(__file__).parents[3] / "Snakefile"  # of a checkout, installed with -e


def main(arguments: argparse.Namespace) -> None:
    """Read the files, check the study and write it as YAML."""
    _refuse_other_settings(arguments.study)
    read = Files()
    entries = [entry for path in arguments.files for entry in _entries(read, path, arguments)]
    name = arguments.study.stem
    study = {
        "title": arguments.title or f"Imported answers: {name}",
        "study": name,
        **{key: list[Any]() for key in EMPTY},
        "imported": entries,
    }
    _check(read, load_study(study))
    _write(arguments.study, study)
    models, datasets = ({entry[key] for entry in entries} for key in ("model", "dataset"))
    cli.log.info(
        "%s: %s, %s, %s; run them with `%s`",
        arguments.study,
        counted(len(entries), "cell"),
        counted(len(models), "model"),
        counted(len(datasets), "data set"),
        _command(arguments.study),
    )


def _refuse_other_settings(path: Path) -> None:
    """Refuse to replace a file that this command has not written, or to which others have added."""
    import yaml

    if not path.exists():
        return
    try:
        old = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError):
        old = None
    if isinstance(old, dict):
        lost = [name for name in old if name not in WRITTEN or (name in EMPTY and old[name])]
    else:
        lost = ["other content"]
    if lost:
        raise PrunecalError(
            f"{path} has {cut(', '.join(map(str, lost)))}, which would be lost; give --study "
            "another name, or remove that file"
        )


def _check(read: Files, study: Study) -> None:
    """Refuse answers of which the study's jobs could not make cells."""
    first, mass = Design(study).imported_datasets, 1.0
    asked: dict[str, pd.DataFrame] = {}
    for entry in study.imported:
        answers = read.answers(first[entry.dataset])
        if not {"image_id", "label"} <= {*answers.layout.columns}:
            continue  # the user has to add the data set to the study, see _tell_columns
        if entry.dataset not in asked:
            asked[entry.dataset] = checked(first[entry.dataset], answers)
        stated, budget = entry.confidence is not None, imported_cell(entry).budget
        own = read.answers(entry)
        cell, told = table(own, asked[entry.dataset], budget, stated=stated)
        if imported_cell(entry).family == "full":
            refuse_flags(own, asked[entry.dataset], cell)
        mass = min(mass, told.mass)  # never NaN, which is not smaller
    if mass < WHOLE:
        cli.log.info(
            "options have %.3g of the probability on average, in the cell with the least; "
            "confidence is the share of that",
            mass,
        )


def _tell_columns(path: Path, layout: Layout, arguments: argparse.Namespace) -> None:
    """Refuse a file that says too little of its rows; say which columns are not read."""
    needed = {"question_id", *(name for name in NAMES if getattr(arguments, name, None) is None)}
    missing = [name for name in (*NAMES, "question_id") if name in needed - {*layout.columns}]
    told = [name for name in ("image_id", "label") if name not in layout.columns]
    if missing:
        lacking = [*missing, *told]
        options = " ".join(f"--{name} …" for name in missing if name in NAMES)
        remedy = f", or give `{options}` for the whole file" if options else ""
        raise PrunecalError(
            f"{path} lacks the columns {', '.join(lacking)} (others that it has: "
            f"{cut(', '.join(layout.unread)) or 'none'}); add them, or say which columns they are "
            f"with `--columns {lacking[-1]}=…`{remedy}"
        )
    if told:
        cli.log.warning(
            "%s lacks %s, so the study needs its data set in `datasets:`, or the file that column",
            path,
            " and ".join(told),
        )
    if layout.unread:
        cli.log.info("%s: columns that are not read: %s", path, ", ".join(layout.unread))


def _command(study: Path) -> str:
    """Return the command that runs a study.

    It names the checkout's Snakefile where the working directory has none.
    """
    outside = not Path("Snakefile").exists() and SNAKEFILE.exists()
    elsewhere = ["--snakefile", str(SNAKEFILE)] if outside else []
    return shlex.join(["snakemake", *elsewhere, "--cores", "all", "--configfile", str(study)])


def _entries(read: Files, path: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    layout, described = read.cells(path, arguments.columns)
    own = _of_predictions(path)
    if not own:
        _tell_columns(path, layout, arguments)
    if layout.form is None and arguments.confidence is None:
        raise PrunecalError(
            f"{path} has stated confidences alone; say what they are: `--confidence verbalised`, "
            "`sampled` or `sequence`"
        )
    kind = arguments.confidence if layout.form is None else None
    return [_entry(path, own | cell, arguments, kind) for cell in described]


def _of_predictions(path: Path) -> dict[str, Any]:
    """Return what the metadata of predictions.parquet of a study say of its cell."""
    if path.suffix != ".parquet":
        return {}
    import pyarrow.parquet as pq

    metadata = pq.read_schema(path).metadata or {}
    if files.METADATA_KEY.encode() not in metadata:
        return {}
    facts = files.read_facts(path)
    more = {name: facts.get(name) for name in ("visual_tokens", "tokens_per_layer")}
    return {**facts["cell"], **{name: value for name, value in more.items() if value is not None}}


def _entry(
    path: Path, cell: dict[str, Any], arguments: argparse.Namespace, kind: str | None
) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    for name in NAMES:
        entry[name] = cell.get(name, getattr(arguments, name))
    if kind is not None:
        entry |= {"model": f"{entry['model']}-{kind}", "confidence": kind}
    entry |= {name: cell[name] for name in DETAILS if not is_missing(cell.get(name))}
    where = str(path)
    entry["budget"] = budget_of(where, entry["budget"])
    if "visual_tokens" in entry:
        tokens = number_of(where, "visual_tokens", entry["visual_tokens"])
        is_whole = tokens is not None and tokens.is_integer()
        entry["visual_tokens"] = int(tokens) if is_whole else tokens
    if "tokens_per_layer" in entry:
        entry["tokens_per_layer"] = number_of(where, "tokens_per_layer", entry["tokens_per_layer"])
    if "parameters" in entry:
        entry["parameters"] = parameters_of(entry["parameters"])
    columns = {"columns": dict(arguments.columns)} if arguments.columns else {}
    return {**entry, "file": str(path), **columns}


def _write(path: Path, study: dict[str, Any]) -> None:
    import yaml

    if len(study["imported"]) > MANY:  # JSON is YAML, and is read a hundred times as fast
        text = json.dumps(study, indent=1, ensure_ascii=False)
    else:
        text = yaml.safe_dump(study, sort_keys=False, allow_unicode=True)
    with files.atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    files.checksum_file(path).unlink()  # a user's file, to be edited


class _Columns(argparse.Action):
    """Pairs of the name that a column has here and the file's own."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        pairs = [value.partition("=") for value in values]
        for name, _, column in pairs:
            if not name or not column:
                parser.error(f"{option_string}: give pairs such as question_id=qid")
        names = [name for name, _, _ in pairs]
        if len(set(names)) < len(names):
            parser.error(f"{option_string}: give each name once")
        setattr(namespace, self.dest, {name: column for name, _, column in pairs})


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="parquet, JSON, CSV or TSV")
    parser.add_argument("--study", type=Path, required=True, help="YAML to write; its name is used")
    parser.add_argument(
        "--columns",
        nargs="+",
        action=_Columns,
        default={},
        metavar="NAME=COLUMN",
        help="the files' own names of columns, such as question_id=qid probability_A=pA",
    )
    parser.add_argument("--title", help="first line of the report")
    parser.add_argument("--model", help="where files have no column model")
    parser.add_argument("--dataset", help="where files have no column dataset")
    parser.add_argument("--strategy", default="full", help="where files have no column strategy")
    parser.add_argument("--budget", help="where files have no column budget: tokens or a share")
    parser.add_argument(
        "--confidence",
        choices=("verbalised", "sampled", "sequence"),
        help="what the column confidence holds, where there are no option scores",
    )
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
