"""Four rival explanations of a change of ECE: temperature, bins, accuracy, and what is kept."""

from __future__ import annotations

import argparse
from pathlib import Path

from prunecal.core import cli
from prunecal.figures import bins, matched, mechanisms, pooling, recalibration, style


def main(arguments: argparse.Namespace) -> None:
    """Draw all five figures: most of the time of each alone would be start-up."""
    style.use()
    metrics = pooling.read(arguments.metrics)
    looks = style.styles(metrics)
    cells, correlations, changes = (
        pooling.read_csv(arguments.tables / f"{name}.csv", budget=kind)
        for name, kind in (("mechanisms", int), ("correlations", str), ("matched", int))
    )
    drawn = {
        "recalibration": recalibration.draw(metrics, correlations, looks),
        "bins": bins.draw(metrics, correlations, looks, arguments.bins),
        "matched": matched.draw(changes, looks),
        "mechanisms": mechanisms.draw(correlations),
        "mechanisms_cells": mechanisms.draw_cells(cells, looks),
    }
    for name, figure in drawn.items():
        style.save(figure, arguments.folder, name)


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the stage's command line."""
    parser = cli.parser(__doc__, "--metrics", "--folder")
    parser.add_argument("--tables", type=Path, required=True, help="folder of prunecal.mechanisms")
    parser.add_argument("--bins", type=int, required=True, help='bins of the metric "ece"')
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
