"""The methods of the study with formulas and sources, and the provenance of each cell.

What belongs to a plugin or a metric is written where it is defined: in docstrings, descriptions of
settings and the catalogue of metrics. What all studies share is written in the template, its
constants taken from the code.

Writes a page of the definitions, and a table with a row per cell, as a page and as CSV: what made
it, how long it took and how much was computed. That table differs from run to run: it holds times.
"""

import argparse
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from prunecal.calibration import recalibration
from prunecal.calibration.catalogue import CATALOGUE
from prunecal.core import cli, plugins
from prunecal.figures import labels, pooling
from prunecal.report import html, provenance, single_questions
from prunecal.statistics import (
    claim_grammar,
    comparisons,
    mechanisms,
    readouts,
    scoring,
    significance,
    thresholds,
)
from prunecal.statistics.scores import REFERENCE
from prunecal.storage import files
from prunecal.strategies._declarations import declarations
from prunecal.study import cells, prompts, schedules, short_answers
from prunecal.study.design import Design
from prunecal.study.settings import Study


def page_values(study: Study, metrics: list[str]) -> dict[str, Any]:
    """Return what the page of definitions shows.

    Args:
        study: the settings.
        metrics: keys of the metrics that the study reports.
    """
    return {
        "study": study,
        "margins": study.statistics.margins,
        "model_families": _model_families(study),
        "prompts": prompts,
        "texts": Design(study).text_signals,
        "strategies": _strategies(study),
        "matched": schedules if any(_matches(study)) else None,
        "flops": schedules.Shape.flops,
        "short_answers": [one.name for one in study.datasets if one.is_short],
        "short_answer_rules": short_answers,
        "readings": readouts.readings,
        "metrics": [metric for key, metric in CATALOGUE.items() if key in metrics],
        "splits": scoring.SPLITS,
        "limits": recalibration.LIMITS,
        "level": pooling.LEVEL,
        "fewest_images": significance.FEWEST_IMAGES,
        "most_undefined": comparisons.MOST_UNDEFINED,
        "risk": thresholds.RISK,
        "delta": thresholds.DELTA,
        "steps": thresholds.STEPS,
        "correlations": mechanisms.correlation_rows,
        "claims": claim_grammar,
        "single_questions": single_questions,
    }


def _model_families(study: Study) -> list[Any]:
    things = []
    for family in sorted({model.family for model in study.models}):
        module = plugins.load("models", family)
        kinds = {kind for kind in _own(module) if hasattr(kind, "encode")}
        things += [module, *(one.encode for one in sorted(kinds, key=lambda one: one.__name__))]
    return things


def _matches(study: Study) -> list[str]:
    """List what budgets of cells are matched by, if by anything but the tokens kept."""
    listed = [cell for one in Design(study).pair_cells.values() for cell in one]
    return [match for cell in listed if (match := dict(cell.parameters).get(schedules.MATCH))]


def _strategies(study: Study) -> list[dict[str, Any]]:
    """Return what the page shows of each plugin: its settings with their values in the study."""
    settings: dict[str, dict[str, dict[str, None]]] = {}
    known = plugins.names("strategies")
    listed = [cell for one in Design(study).pair_cells.values() for cell in one]
    for cell in dict.fromkeys(listed):
        if cell.family not in known:
            continue  # of imported cells
        values = settings.setdefault(cell.family, {})
        for key, value in cell.parameters:
            values.setdefault(key, {})[str(value)] = None
    strategies = []
    for family, values in settings.items():
        module = plugins.load("strategies", family)
        strategies.append(
            {
                "label": module.LABEL,
                "module": module,
                "declared": {} if family == REFERENCE else declarations(module),
                "settings": [
                    (key, field.description or "", list(values.get(key, {})))
                    for key, field in module.Params.model_fields.items()
                ],
                "functions": [thing for thing in _own(module) if thing is not module.Params],
            }
        )
    return strategies


def _own(module: ModuleType) -> list[Any]:
    """List the public functions and classes that a module defines."""
    return [
        thing
        for name, thing in vars(module).items()
        if callable(thing) and not name.startswith("_")
        if getattr(thing, "__module__", None) == module.__name__
    ]


def main(arguments: argparse.Namespace) -> None:
    """Write both pages and the table."""
    study = cells.load_study(files.read_json(arguments.study))
    column = files.read_table(arguments.metrics, ["metric"]).column("metric")
    values = page_values(study, [*mechanisms.SALIENCY, *column.unique().to_pylist()])
    html.write(arguments.page, "methods", title="Methods", **values)
    manifests = {path.parent.name: path for path in arguments.manifests}
    shapes = {
        model.name: provenance.decoder_shape(model.source(), manifests[model.name])
        for model in study.models
    }
    rows = provenance.provenance_rows(arguments.predictions, shapes)
    names = labels.names_of(files.read_table(arguments.metrics).to_pandas())
    named = labels.for_readers(pd.DataFrame(rows, dtype=object), names)
    values = provenance.page_values(named.to_dict("records"))
    html.write(arguments.provenance, "provenance", title="Provenance", **values)
    with files.atomic(arguments.table, files.read_so_far()) as temporary:
        pd.DataFrame(rows).convert_dtypes().to_csv(temporary, index=False)


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the stage's command line."""
    parser = cli.parser(__doc__, "--study", "--metrics", "--manifests", "--predictions")
    parser.add_argument("--page", type=Path, required=True, help="HTML to write")
    parser.add_argument("--provenance", type=Path, required=True, help="HTML to write")
    parser.add_argument("--table", type=Path, required=True, help="the same to write as CSV")
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
