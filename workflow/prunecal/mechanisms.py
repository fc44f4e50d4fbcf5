"""What moves with accuracy and calibration over cells, and what a change of accuracy explains.

Writes three tables to a folder, all over the whole data set (subset "all") and on the resamples of
the score files. mechanisms.csv: a row per cell with accuracy, ECE and what might explain them, each
as M, M_low and M_high; what a cell does not have is empty. correlations.csv: a row per model, data
set, group of cells and pair of metrics with Spearman's rank correlation over these cells.
matched.csv: a row per pruned cell with its change of accuracy and of ECE, the change of ECE that
accuracy alone would bring (see `accuracy_matched.expected_change`), and the rest with its interval
and test.
"""

import argparse
from pathlib import Path

from prunecal.core import cli
from prunecal.statistics.accuracy_matched import matched_rows
from prunecal.statistics.kept_saliency import Sources
from prunecal.statistics.mechanisms import (
    COLUMNS,
    correlation_rows,
    measure,
    mechanism_rows,
)
from prunecal.statistics.scores import read_scores
from prunecal.statistics.tables import Rows, write_csv


def main(arguments: argparse.Namespace) -> None:
    """Write the tables."""
    sources = Sources(arguments.rankings, arguments.features, arguments.unpruned)
    rows: dict[str, Rows] = {name: [] for name in COLUMNS}
    for scores in read_scores(arguments.scores):
        tables, bins = measure(scores, sources)
        rows["mechanisms"] += mechanism_rows(scores, tables, arguments.level)
        rows["correlations"] += correlation_rows(scores, tables, arguments.level)
        rows["matched"] += matched_rows(scores, tables, bins, arguments.level)
    for name, columns in COLUMNS.items():
        write_csv(arguments.folder / f"{name}.csv", rows[name], columns, arguments.scores)


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the stage's command line."""
    parser = cli.parser(__doc__, "--scores", "--rankings", "--folder", "--level")
    parser.add_argument("--unpruned", type=Path, nargs="+", required=True, help="its predictions")
    parser.add_argument("--features", type=Path, nargs="*", default=[], help="for the saliency")
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
