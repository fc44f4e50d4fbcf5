"""Every definition as used, from the docstrings of the code that computes it, and each cell's past.

Writes a page of the definitions, and a table with a row per cell, as a page and as CSV: what made
it, how long it took and how much was computed. It is no table of results: it differs from run to
run.
"""

import argparse
import re
from html import escape
from inspect import cleandoc
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from prunecal.calibration.catalogue import CATALOGUE
from prunecal.core import cli, plugins
from prunecal.report import single_questions
from prunecal.report.provenance import decoder_shape, provenance_page, provenance_rows
from prunecal.statistics import (
    accuracy_matched,
    bootstrap,
    claim_grammar,
    comparisons,
    contrasts,
    mechanisms,
    predictions,
    significance,
)
from prunecal.statistics.scores import REFERENCE
from prunecal.storage import files
from prunecal.strategies import _similarity
from prunecal.study import cells, prompts
from prunecal.study.settings import Study

SECTIONS = re.compile(r"^(Args|Returns|Raises|Attributes|Yields|Example):$", re.MULTILINE)
TESTS = (
    bootstrap.clustered_bootstrap,
    bootstrap.image_folds,
    bootstrap.interval,
    significance.two_sided_p,
    significance.holm,
    significance.minimum_detectable,
    comparisons.comparison_rows,
)
EXPLANATIONS = (
    mechanisms.saliency_tables,
    contrasts.rank_correlation,
    mechanisms.correlation_rows,
    accuracy_matched.expected_change,
    accuracy_matched.matched_rows,
)
STYLE = """<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 1rem auto; padding: 0 1rem; max-width: 60rem;
  color: #1a1a1a; background: #fff; overflow-wrap: anywhere }
dt { font-weight: 600; margin-top: .8rem }
dd { margin: 0 0 0 1.2rem }
dd p { margin: .2rem 0 }
code { font-size: .95em }
small { color: #595959 }
pre, .scroll { overflow-x: auto }
table { border-collapse: collapse }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #ddd; text-align: left; min-width: 5rem }
</style>"""


def words(thing: Any) -> str:
    """Return the text of a docstring before its sections, as HTML paragraphs.

    Raises:
        ValueError: there is no docstring.
    """
    text = thing if isinstance(thing, str) else thing.__doc__
    if not text:
        raise ValueError(f"{thing!r} has no docstring, so its definition cannot be shown")
    found = SECTIONS.search(text := cleandoc(text))
    text = text[: found.start()] if found else text
    parts = [part for part in text.strip().split("\n\n") if part.strip()]
    return "".join(_paragraph(part) for part in parts)


def _paragraph(text: str) -> str:
    if all(line.startswith("- ") or line.startswith("  ") for line in text.splitlines()):
        items = re.split(r"^- ", text, flags=re.MULTILINE)[1:]
        return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>"
    return f"<p>{_inline(text)}</p>"


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(" ".join(text.split())))


def page(study: Study, metrics: list[str]) -> str:
    """Return the page of definitions.

    Args:
        study: the settings.
        metrics: keys of the metrics that the study reports.
    """
    parts = [
        ("Models and visual tokens", _models(study)),
        ("Prompts", words(prompts) + words(prompts.conversation)),
        ("Strategies", _strategies(study)),
        ("Evidence coverage", words(_similarity.coverage)),
        ("Answers and confidence", _confidence()),
        ("Metrics", _metrics(metrics, study)),
        ("Intervals and tests", words(bootstrap) + _listed(TESTS)),
        ("What explains a change", _listed(EXPLANATIONS)),
        ("Claims", words(claim_grammar)),
        ("Single questions", words(single_questions)),
    ]
    body = "".join(f"<h2>{title}</h2>\n{text}\n" for title, text in parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Methods</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{STYLE}</head><body>\n<h1>Methods</h1>\n<p>Definitions as they are computed: each text "
        f"stands in the code beside what it describes.</p>\n{body}</body></html>\n"
    )


def _models(study: Study) -> str:
    parts = []
    for family in sorted({model.family for model in study.models}):
        module = plugins.load("models", family)
        parts.append(words(module))
        kinds = {kind for kind in _own(module) if hasattr(kind, "encode")}
        parts += [words(kind.encode) for kind in sorted(kinds, key=lambda kind: kind.__name__)]
    for model in study.models:
        source = ", ".join(f"{key} {value}" for key, value in model.source().items())
        run = ", ".join(f"{key} {value}" for key, value in model.run_settings().items())
        parts.append(
            f"<p><strong>{escape(model.name)}</strong>: {escape(source)}; {escape(run)}.</p>"
        )
    return "".join(parts)


def _strategies(study: Study) -> str:
    found: dict[str, dict[str, dict[str, None]]] = {}
    for cell in cells.cells(study, study.models[0]):
        values = found.setdefault(cell.family, {})
        for key, value in cell.parameters:
            values.setdefault(key, {})[str(value)] = None
    parts = []
    for family, values in found.items():
        module = plugins.load("strategies", family)
        where = "inside" if module.PLACE == "decoder" else "before"
        drops = "" if family == REFERENCE else f"<p>Drops tokens {where} the decoder.</p>"
        parts.append(
            f"<h3>{escape(module.LABEL)}</h3>{words(module)}{drops}"
            f"{_settings(module, values)}{_how(module)}"
        )
    return "".join(parts)


def _settings(module: ModuleType, values: dict[str, dict[str, None]]) -> str:
    """Return a table of a strategy's settings and the values that the study gives them."""
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(key)}</code></th>'
        f"<td>{escape(field.description or '')}</td>"
        f"<td>{escape(', '.join(values.get(key, {})))}</td></tr>"
        for key, field in module.Params.model_fields.items()
    )
    head = "<tr><th>Setting</th><th>Meaning</th><th>In this study</th></tr>"
    return f'<div class="scroll" tabindex="0"><table>{head}{rows}</table></div>' if rows else ""


def _how(module: ModuleType) -> str:
    """Return what a strategy's public functions say of themselves."""
    return _listed([thing for thing in _own(module) if thing is not module.Params])


def _own(module: ModuleType) -> list[Any]:
    """List the public functions and classes that a module defines."""
    return [
        thing
        for name, thing in vars(module).items()
        if callable(thing) and not name.startswith("_")
        if getattr(thing, "__module__", None) == module.__name__
    ]


def _confidence() -> str:
    cell = predictions.Cell
    wanted = ("prediction", "log_probability", "confidence", "correct", "yes")
    parts = ((key, words(vars(cell)[key].func)) for key in wanted)
    return "<dl>" + "".join(f"<dt>{key}</dt><dd>{text}</dd>" for key, text in parts) + "</dl>"


def _metrics(metrics: list[str], study: Study) -> str:
    better = {True: "higher is better", False: "lower is better", None: ""}
    parts = []
    for metric in (metric for key, metric in CATALOGUE.items() if key in metrics):
        formula = f"<p><code>{escape(metric.formula)}</code></p>" if metric.formula else ""
        source = f"<p><small>{escape(metric.source)}</small></p>" if metric.source else ""
        parts.append(
            f"<dt>{escape(metric.label)} <small><code>{escape(metric.key)}</code> "
            f"{better[metric.higher_is_better]}</small></dt>"
            f"<dd>{words(metric.definition)}{formula}{source}</dd>"
        )
    start = f"<p>This study's ECE has {study.statistics.bins} bins.</p>"
    return f"{start}<dl>{''.join(parts)}</dl>"


def _listed(functions: Any) -> str:
    items = "".join(
        f"<dt><code>{escape(one.__name__)}</code></dt><dd>{words(one)}</dd>" for one in functions
    )
    return f"<dl>{items}</dl>"


def main(arguments: argparse.Namespace) -> None:
    """Write both files."""
    study = cells.load_study(files.read_json(arguments.study))
    column = files.read_table(arguments.metrics, ["metric"]).column("metric")
    text = page(study, [*mechanisms.SALIENCY, *column.unique().to_pylist()])
    with files.atomic(arguments.page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    manifests = {path.parent.name: path for path in arguments.manifests}
    shapes = {
        model.name: decoder_shape(model.source(), manifests[model.name]) for model in study.models
    }
    rows = provenance_rows(arguments.predictions, shapes)
    with files.atomic(arguments.provenance) as temporary:
        temporary.write_text(provenance_page(rows), encoding="utf-8")
    with files.atomic(arguments.table) as temporary:
        pd.DataFrame(rows).convert_dtypes().to_csv(temporary, index=False)


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the stage's command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("--study", type=Path, required=True, help="study.json")
    parser.add_argument("--metrics", type=Path, required=True, help="metrics.parquet")
    parser.add_argument("--manifests", type=Path, nargs="+", required=True, help="of all models")
    parser.add_argument("--predictions", type=Path, nargs="+", required=True, help="of all cells")
    parser.add_argument("--page", type=Path, required=True, help="HTML to write")
    parser.add_argument("--provenance", type=Path, required=True, help="HTML to write")
    parser.add_argument("--table", type=Path, required=True, help="the same to write as CSV")
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
