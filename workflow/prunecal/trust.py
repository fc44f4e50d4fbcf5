"""Ask whether a pruned model's confidence may be used as that of the unpruned model was.

Writes four tables to a folder, all over the whole data set (subset "all"). trust.csv: a row per
strategy with the smallest budget down to which it is shown to be no worse than the unpruned model
by more than the margins, as it is and with one temperature refitted, and why nothing was tested
(too few images, or an unpruned model at chance; else empty). trust_cells.csv: a row per
strategy and budget with the differences and tests behind it. thresholds.csv: a row per cell with
risk and coverage at the unpruned model's confidence threshold for 5 % risk, chosen on these
questions and chosen with a guarantee, and the same of the cell's own thresholds. selected.csv: the
lowest ECE and the highest accuracy, with intervals that account for the selection. Seeds of one
strategy are one row, its mean, except in thresholds.csv.
"""

import argparse
from pathlib import Path

from prunecal.core import cli
from prunecal.core.errors import RERUN, PrunecalError
from prunecal.statistics.kept_thresholds import threshold_rows
from prunecal.statistics.predictions import Cell, read_cells
from prunecal.statistics.scores import Scores, read_scores
from prunecal.statistics.selection import selected_rows
from prunecal.statistics.tables import Rows, write_csv
from prunecal.statistics.task import Task
from prunecal.statistics.trust import trust_rows
from prunecal.storage import files

CELL = ("model", "dataset", "strategy", "family", "budget")
COLUMNS = {  # of the tables
    "trust": (
        "model", "dataset", "strategy", "family", "seeds", "smallest_budget", "next_budget",
        "at_next", "smallest_budget_recalibrated", "accuracy_margin", "ece_margin", "n_images",
        "not_tested",
    ),
    "trust_cells": (
        *CELL, "seeds", "accuracy_delta", "accuracy_delta_low", "accuracy_delta_high",
        "p_accuracy", "ece_delta", "ece_delta_low", "ece_delta_high", "p_ece", "verdict",
        "ece_recalibrated_delta", "p_recalibrated", "verdict_recalibrated", "overconfidence",
        "overconfidence_low", "overconfidence_high", "ece_debiased", "ece_temperature",
        "ece_refit_delta", "ece_refit_delta_low", "ece_refit_delta_high", "accuracy_provable",
        "ece_provable",
    ),
    "thresholds": (
        *CELL, "threshold", "coverage", "risk", "risk_low", "risk_high", "p", "p_adjusted",
        "guaranteed_threshold", "guaranteed_coverage", "guaranteed_risk", "own_threshold",
        "own_coverage", "own_guaranteed_threshold", "own_guaranteed_coverage", "silent",
    ),
    "selected": (
        "model", "dataset", "selection", "metric", "strategy", "family", "budget", "seeds",
        "value", "ci_low", "ci_high", "among",
    ),
}  # fmt: skip


def main(arguments: argparse.Namespace) -> None:
    """Write the tables."""
    margins = {"accuracy": arguments.accuracy_margin, "ece": arguments.ece_margin}
    paths: dict[tuple[str, str], list[Path]] = {}
    for path in arguments.predictions:
        cell = files.read_facts(path)["cell"]
        paths.setdefault((cell["model"], cell["dataset"]), []).append(path)
    tables: dict[str, Rows] = {name: [] for name in COLUMNS}
    for scores in read_scores(arguments.scores):
        cells = _in_order(scores, paths.get((scores.task["model"], scores.task["dataset"]), []))
        task = Task(scores, cells, margins)
        strategies, budgets = trust_rows(task, arguments.level)
        tables["trust"] += strategies
        tables["trust_cells"] += budgets
        tables["thresholds"] += threshold_rows(task, arguments.level)
        tables["selected"] += selected_rows(task, arguments.level)
    for name, rows in tables.items():
        listed = [{key: row[key] for key in COLUMNS[name]} for row in rows]
        path = arguments.folder / f"{name}.csv"
        write_csv(path, listed, list(COLUMNS[name]), arguments.scores)


def _in_order(scores: Scores, paths: list[Path]) -> list[Cell]:
    """Read the predictions of the cells of a score file.

    Raises:
        PrunecalError: those of a cell are not among the paths.
    """
    read = {(cell.facts["strategy"], cell.facts["budget"]): cell for cell in read_cells(paths)}
    missing = [one for one in scores.cells if (one["strategy"], one["setting"]) not in read]
    for cell in missing:
        raise PrunecalError(
            f"{scores.path} holds {cell['strategy']} at {cell['budget']} tokens, whose predictions "
            f"were not given; {RERUN}"
        )
    return [read[cell["strategy"], cell["setting"]] for cell in scores.cells]


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the stage's command line."""
    parser = cli.parser(__doc__, "--scores", "--predictions", "--folder", "--level")
    for name in ("accuracy", "ece"):
        parser.add_argument(
            f"--{name}-margin", type=float, default=0.02, help=f"by how much {name} may be worse"
        )
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
