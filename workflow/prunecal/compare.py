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

from prunecal.core import cli
from prunecal.statistics.aggregates import aggregates
from prunecal.statistics.scores import read_scores
from prunecal.statistics.tables import write_table_csv
from prunecal.storage import files

IN_PARQUET = ("metrics", "comparisons")  # too


def main(arguments: argparse.Namespace) -> None:
    """Write the tables."""
    keys = ("model", "dataset", "bins", "seed", "resamples")
    studied = [scores.facts for scores in read_scores(arguments.scores)]
    facts = {
        "level": arguments.level,
        "scores": [{key: one[key] for key in keys} for one in studied],
    }
    for name, table in aggregates(arguments.scores, arguments.level).items():
        path = arguments.folder / f"{name}.csv"
        if name in IN_PARQUET:
            files.write_table(path.with_suffix(".parquet"), table, facts, arguments.scores)
        write_table_csv(path, table, arguments.scores)


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the stage's command line."""
    return cli.parser(__doc__, "--scores", "--folder", "--level").parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
