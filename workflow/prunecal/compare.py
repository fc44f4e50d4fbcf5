"""Turn score files into tables: every metric with its interval, every difference with its test.

Writes to a folder metrics and comparisons, each as .parquet and .csv, detectable.csv and
calibration.csv. metrics: one row per model, dataset, subset, strategy, budget and metric, with
value, ci_low, ci_high, n and n_images, and how the cell fills the bins of confidence: bins_filled
of them hold a question, the fullest one largest_bin_share of all. comparisons: the same keys for
every pruned cell, with delta, ci_low, ci_high, p and p_adjusted against the unpruned model on the
same resamples. Both have the columns family and one per strategy parameter, null where it does not
apply; where images have different numbers of tokens, budget is the mean number that is kept,
rounded, and share the mean share of an image's tokens. detectable: the smallest difference that
data of this size can show, and the number of resamples, per model, dataset, subset and metric.
calibration: for each cell a test of whether it is calibrated, a lower bound of its ECE, and the
slope and intercept of its calibration.
"""

import argparse

import pyarrow as pa

from prunecal.core import cli
from prunecal.statistics.calibrated import COLUMNS, calibration_rows
from prunecal.statistics.comparisons import (
    columns,
    comparison_rows,
    detectable_rows,
    have_shares,
    metric_rows,
    parameter_names,
)
from prunecal.statistics.scores import read_scores
from prunecal.statistics.tables import typed_table, write_table_csv
from prunecal.storage import files


def main(arguments: argparse.Namespace) -> None:
    """Write the tables."""
    studied = read_scores(arguments.scores)
    every = read_scores(arguments.scores, blind=True)
    parameters = parameter_names(every)
    facts = {
        "level": arguments.level,
        "scores": [
            {key: scores.facts[key] for key in ("model", "dataset", "bins", "seed", "resamples")}
            for scores in studied
        ],
    }
    level, shares = arguments.level, have_shares(studied)
    metrics = [row for scores in every for row in metric_rows(scores, level)]
    comparisons = [row for scores in studied for row in comparison_rows(scores, level)]
    for name, rows in (("metrics", metrics), ("comparisons", comparisons)):
        table = typed_table(rows, columns(name, parameters, shares=shares))
        path = arguments.folder / f"{name}.parquet"
        files.write_table(path, table, facts, arguments.scores)
        write_table_csv(path.with_suffix(".csv"), table, arguments.scores)
    detectable = [row for scores in studied for row in detectable_rows(scores)]
    path = arguments.folder / "detectable.csv"
    write_table_csv(path, pa.Table.from_pylist(detectable), arguments.scores)
    calibrated = [row for scores in studied for row in calibration_rows(scores, level)]
    table = typed_table(calibrated, COLUMNS)
    write_table_csv(arguments.folder / "calibration.csv", table, arguments.scores)


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the stage's command line."""
    return cli.parser(__doc__, "--scores", "--folder", "--level").parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
