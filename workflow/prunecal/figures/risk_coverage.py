"""Risk-coverage curves: the error rate if only the most confident share is answered."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np

from prunecal.core import cli
from prunecal.figures import cell_selection, pooling, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

SHOWN_FROM = 0.05  # coverage from which on a curve must fit the axis; a few answers make it jump
POINTS = 200  # of a curve that are drawn; more would only make the file larger


def main(arguments: argparse.Namespace) -> None:
    """Draw a column of panels per data set, a row per budget."""
    style.use()
    cells = cell_selection.catalogue(arguments.predictions)
    looks = style.styles(cells.drop(columns="path"))
    rows = cell_selection.in_panels(cells)
    read = (cell_selection.read(path) for path in rows["path"])
    curves = [thin(*risk_coverage_curve(answers.confidence, answers.correct)) for answers in read]
    style.save(draw(rows, curves, looks), arguments.folder, "risk_coverage")


def risk_coverage_curve(confidence: NDArray, correct: NDArray) -> tuple[NDArray, NDArray]:
    """Return coverage k / n and the error rate among the k most confident, for k = 1 … n.

    Ties count in expectation over their orders; the mean of the risks is the AURC.

    Args:
        confidence: float [n].
        correct: bool [n].

    Returns:
        coverage and risk, float64 [n] each.
    """
    values, group, size = np.unique(-confidence, return_inverse=True, return_counts=True)
    share = np.bincount(group, ~correct, len(values)) / size  # error rate of each tied group
    count = np.arange(1, len(confidence) + 1)
    return count / len(confidence), np.repeat(share, size).cumsum() / count


def thin(coverage: NDArray, risk: NDArray) -> tuple[NDArray, NDArray]:
    """Keep at most `POINTS` evenly spaced points of a curve, first and last among them."""
    kept = np.unique(np.linspace(0, len(coverage) - 1, POINTS).round().astype(int))
    return coverage[kept], risk[kept]


def draw(
    cells: pd.DataFrame, curves: list[tuple[NDArray, NDArray]], looks: dict[str, style.Style]
) -> Figure:
    """Draw the curves.

    Args:
        cells: columns model, dataset, strategy, name, family and budget; one row per curve.
        curves: (coverage, risk) in the order of `cells`.
        looks: the study's styles.
    """
    from matplotlib.ticker import PercentFormatter

    tasks = pooling.tasks(cells)
    budgets = pooling.budgets(cells) or [int(cells["budget"].iloc[0])]
    figure, columns = style.columns_of_panels(
        len(tasks), len(budgets), (4.2, 3.3), (2.2, 0.5), sharex=True
    )
    highest = dict.fromkeys(tasks, 0.01)
    for cell, (coverage, risk) in zip(cells.itertuples(), curves, strict=True):
        task = (cell.model, cell.dataset)
        highest[task] = max(highest[task], risk[coverage >= SHOWN_FROM].max())
        column = columns[tasks.index(task)]
        look, reference = looks[cell.strategy], cell.family == style.REFERENCE
        for axes, budget in zip(column, budgets, strict=True):
            if reference or cell.budget == budget:
                axes.plot(
                    coverage,
                    risk,
                    color=look.colour,
                    linestyle=look.dash,
                    linewidth=2 if reference else 1.3,
                    marker=look.marker,
                    markevery=0.2,
                    markersize=4.5,
                    markeredgecolor="white",
                    label=cell.name,
                )
    for number, (column, task) in enumerate(zip(columns, tasks, strict=True)):
        for axes, budget in zip(column, budgets, strict=True):
            axes.set_title(f"{pooling.task_title(task, tasks)}, {budget} tokens")
            axes.set(xlim=(0, 1.01))
            axes.set_ylim(0, 1.08 * highest[task])
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(PercentFormatter(1, decimals=0))
            if number % style.ACROSS == 0:
                axes.set_ylabel("Risk: wrong among the answered")
        column[-1].set_xlabel("Coverage: answered, most confident first")
    style.legend_beside(figure, *style.drawn(figure))
    figure.suptitle("Risk against coverage: lower is better")
    return figure


if __name__ == "__main__":
    cli.run(main, cli.parser(__doc__, "--predictions", "--folder").parse_args())
