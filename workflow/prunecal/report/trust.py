"""The page "Can it be trusted?" and its figure: may a pruned model's confidence be used as before?

The sentences come first, then a figure and the tables that they are made of.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from prunecal.core import cli
from prunecal.figures import pooling, style
from prunecal.figures import trust as figure
from prunecal.report import html, trust_tables, trust_text
from prunecal.statistics.thresholds import DELTA, RISK
from prunecal.storage import files
from prunecal.study.cells import load_study


def main(arguments: argparse.Namespace) -> None:
    """Write the page, the figure as SVG and PNG."""
    style.use()
    study = load_study(files.read_json(arguments.study))
    looks = style.styles(pooling.read(arguments.metrics))
    tables = trust_tables.read(arguments.tables, looks)
    drawn = figure.draw(tables.cells, tables.thresholds)
    style.save(drawn, arguments.figures, "trust")
    html.write(
        arguments.page,
        "trust",
        title="Can it be trusted?",
        margins=study.statistics.margins,
        level=f"{100 * study.statistics.level:g}",
        error_rate=f"{100 * pooling.LEVEL:g}",
        significant=f"{pooling.LEVEL:g}",
        risk=f"{100 * RISK:g}",
        delta=f"{100 * DELTA:g}",
        figure=files.read_bytes(arguments.figures / "trust.svg"),
        tasks=[
            {
                "title": f"{dataset}, {model}",
                "answer": trust_text.answer(task),
                "kept": trust_text.thresholds(task),
                "strategies": trust_tables.strategy_rows(task),
                "cells": trust_tables.cell_rows(task),
                "thresholds": trust_tables.threshold_rows(task),
            }
            for model, dataset in pooling.tasks(tables.thresholds)
            for task in [tables.of_task((model, dataset))]
        ],
        files=[path.name for path in arguments.tables],
    )


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the stage's command line."""
    parser = cli.parser(__doc__, "--study", "--metrics")
    trust_tables.add_argument(parser, "--tables")
    parser.add_argument("--page", type=Path, required=True, help="HTML to write")
    parser.add_argument("--figures", type=Path, required=True, help="folder of the figure to write")
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
