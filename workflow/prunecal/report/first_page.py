"""The report's first page: question, findings, claims, data, limits and provenance of a study."""

from __future__ import annotations

import argparse
from pathlib import Path

from prunecal.core import cli
from prunecal.figures import labels, pooling
from prunecal.figures.style import styles
from prunecal.report import html, opening, readouts, trust_tables, trust_text
from prunecal.report.first_page_tables import cells_table, claim_rows, counted, provenance
from prunecal.report.first_page_text import QUESTION, findings, join, limits
from prunecal.report.provenance import imported_limits, sequence_limits, version_limits
from prunecal.storage import files
from prunecal.study.cells import load_study
from prunecal.study.design import Design


def main(arguments: argparse.Namespace) -> None:
    """Write the page, a fragment of HTML."""
    study = load_study(files.read_json(arguments.study))
    metrics, comparisons = pooling.read(arguments.metrics), pooling.read(arguments.comparisons)
    numbers = ("beyond", "ci_low", "ci_high", "p", "p_adjusted")
    matched = pooling.read_csv(arguments.matched, budget=int, **dict.fromkeys(numbers, float))
    detectable = pooling.read_csv(arguments.detectable)
    datasets = pooling.read_csv(arguments.datasets).fillna("")
    cells = pooling.read_csv(arguments.provenance)
    table = readouts.marked(join(metrics, comparisons, matched), metrics)
    trust = trust_tables.read(arguments.trust, styles(metrics))
    claims, names = files.read_json(arguments.claims), labels.names_of(metrics)
    design = Design(study)
    trained = design.trained
    html.write(
        arguments.out,
        "first_page",
        study=study,
        question=QUESTION,
        trained=trained,
        models=[*trained, *(name for name in design.model_names if name not in trained)],
        dataset_names=design.dataset_names,
        level=f"{pooling.LEVEL:g}",
        error_rate=f"{100 * pooling.LEVEL:g}",
        warnings=opening.warnings(metrics, datasets),
        expected=opening.expected(study.expect, metrics),
        silent=bool(table["silent"].any()),
        readouts=readouts.findings(metrics, comparisons, claims),
        trust=[
            {
                "title": task,
                "sentences": trust_text.answer(trust.of_task(task)),
                "kept": trust_text.thresholds(trust.of_task(task)),
            }
            for task in pooling.tasks(trust.thresholds)
        ],
        findings=findings(table[~table["silent"]], trust.selected),
        figure=files.read_bytes(arguments.figure),
        cells=[
            cells_table(pooling.of_task(table, task), task, vary=design.images_vary(task))
            for task in pooling.tasks(table)
        ],
        claims=claim_rows(claims, names),
        counts=counted([claim["verdict"] for claim in claims]),
        datasets=datasets.to_dict("records"),
        limits=[
            *limits(study, detectable),
            *sequence_limits(cells),
            *imported_limits(cells),
            *version_limits(cells["versions"].dropna()),
        ],
        provenance=provenance(study, cells),
        files=vars(arguments),
    )


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the stage's command line."""
    parser = cli.parser(__doc__, "--study", "--metrics", "--comparisons")
    parser.add_argument("--matched", type=Path, required=True, help="matched.csv")
    parser.add_argument("--detectable", type=Path, required=True, help="detectable.csv")
    trust_tables.add_argument(parser, "--trust")
    parser.add_argument("--claims", type=Path, required=True, help="claims.json")
    parser.add_argument("--datasets", type=Path, required=True, help="datasets.csv")
    parser.add_argument("--provenance", type=Path, required=True, help="provenance.csv")
    parser.add_argument("--figure", type=Path, required=True, help="headline figure, SVG")
    parser.add_argument("--out", type=Path, required=True, help="HTML to write")
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
