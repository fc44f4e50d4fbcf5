"""The report's first page: what was asked, what was found, of which model and data, and how.

python -m prunecal.report.first_page --study study.json --metrics F --comparisons F --matched F.csv
    --detectable F.csv --claims F --datasets F.csv --provenance F.csv
    --figure F.svg --out summary.html
"""

from __future__ import annotations

import argparse
import base64
from html import escape
from pathlib import Path

from prunecal.caching.fingerprint import ROOT
from prunecal.core import cli
from prunecal.figures import pooling
from prunecal.report.first_page_tables import (
    LEGEND,
    cells_table,
    claims_table,
    datasets_table,
    provenance,
)
from prunecal.report.first_page_text import QUESTION, findings, limits, scope, source, together
from prunecal.storage import files
from prunecal.study.cells import load_study

DATASETS = ("dataset", "subsets", "first_question", "options", "answer")  # columns of texts
PROVENANCE = ("device", "platform", "versions")
STYLE = ROOT.parent / "reports" / "report.css"


def main(arguments: argparse.Namespace) -> None:
    """Write the page, a fragment of HTML."""
    import pandas as pd

    study = load_study(files.read_json(arguments.study))
    metrics, comparisons = pooling.read(arguments.metrics), pooling.read(arguments.comparisons)
    kinds = {"budget": int} | dict.fromkeys(("beyond", "ci_low", "ci_high", "p", "p_holm"), float)
    exact = {"keep_default_na": False, "na_values": [""]}  # a subset may well be called "NA"
    matched = pd.read_csv(arguments.matched, dtype=kinds, **exact)
    detectable = pd.read_csv(arguments.detectable, **exact)
    texts = dict.fromkeys(DATASETS, str)
    datasets = pd.read_csv(arguments.datasets, dtype=texts, keep_default_na=False)
    cells = pd.read_csv(arguments.provenance, dtype=dict.fromkeys(PROVENANCE, str), **exact)
    table = together(metrics, comparisons, matched)
    sections = [
        f"<h1>{escape(study.title)}</h1>",
        f'<p class="question">{escape(QUESTION)}</p>',
        scope(study),
        "<h2>What was found</h2>",
        *findings(table),
        figure(arguments.figure),
        *(cells_table(pooling.of_task(table, task), task) for task in pooling.tasks(table)),
        LEGEND,
        source(
            "Values are rows of subset “all” in {}, differences and Holm’s p in {}, what accuracy "
            "alone explains in {}.",
            arguments.metrics,
            arguments.comparisons,
            arguments.matched,
        ),
        "<h2>The claims, tested</h2>",
        claims_table(files.read_json(arguments.claims)),
        source("Every comparison of a claim is an entry of {}.", arguments.claims),
        "<h2>What it was asked on</h2>",
        datasets_table(datasets),
        source("The rows of {}.", arguments.datasets),
        "<h2>Limits</h2>",
        limits(study, detectable),
        source("What can be shown is in {}.", arguments.detectable),
        "<h2>Provenance</h2>",
        provenance(study, cells),
        source(
            "Settings are in {}, each cell’s past in {}.", arguments.study, arguments.provenance
        ),
    ]
    start = [
        '<meta name="viewport" content="width=device-width, initial-scale=1">',  # opened by itself
        f"<style>\n{STYLE.read_text(encoding='utf-8')}</style>",
        '<div class="first-page">',
    ]
    with files.atomic(arguments.out) as path:
        path.write_text("\n".join([*start, *sections, "</div>", ""]), encoding="utf-8")


def figure(path: Path) -> str:
    """Embed an SVG as an image, so that the page needs no other file."""
    content = base64.b64encode(path.read_bytes()).decode()
    return (
        '<div class="scroll" tabindex="0"><img alt="ECE of each strategy against the budget of '
        'visual tokens, with the unpruned model as a band" '
        f'src="data:image/svg+xml;base64,{content}"></div>'
    )


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the stage's command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("--study", type=Path, required=True, help="study.json")
    parser.add_argument("--metrics", type=Path, required=True, help="metrics.parquet")
    parser.add_argument("--comparisons", type=Path, required=True, help="comparisons.parquet")
    parser.add_argument("--matched", type=Path, required=True, help="matched.csv")
    parser.add_argument("--detectable", type=Path, required=True, help="detectable.csv")
    parser.add_argument("--claims", type=Path, required=True, help="claims.json")
    parser.add_argument("--datasets", type=Path, required=True, help="datasets.csv")
    parser.add_argument("--provenance", type=Path, required=True, help="provenance.csv")
    parser.add_argument("--figure", type=Path, required=True, help="headline figure, SVG")
    parser.add_argument("--out", type=Path, required=True, help="HTML to write")
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
