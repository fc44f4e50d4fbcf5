"""Reliability diagrams: accuracy against confidence, with the confidences' histogram beneath."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from prunecal.calibration.binned import expected_calibration_error, reliability_diagram
from prunecal.calibration.bins import bin_index
from prunecal.core import cli
from prunecal.figures import cell_selection, pooling, style
from prunecal.statistics.bootstrap import image_weights

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

BINS = 15
RESAMPLES = 1000


class Diagram(NamedTuple):
    """What one diagram draws; arrays are [bins], NaN where a bin is empty."""

    edges: NDArray  # float64 [bins + 1]
    count: NDArray  # int64
    confidence: NDArray  # float64, mean confidence
    accuracy: NDArray  # float64
    low: NDArray  # float64, 95 % interval of the accuracy
    high: NDArray
    ece: float


def main(arguments: argparse.Namespace) -> None:
    """Draw one figure per model and data set."""
    style.use()
    cells = cell_selection.catalogue(arguments.predictions)
    looks = style.styles(cells.drop(columns="path"))
    for task in pooling.tasks(cells):
        rows = cell_selection.in_panels(pooling.of_task(cells, task))
        diagrams = [diagram(cell_selection.read(path)) for path in rows["path"]]
        name = f"reliability_{task[0]}_{task[1]}"
        style.save(draw(rows, diagrams, looks, f"{task[1]}, {task[0]}"), arguments.folder, name)


def diagram(answers: cell_selection.Answers, bins: int = BINS, seed: int = 0) -> Diagram:
    """Compute a reliability diagram with intervals from resamples of images.

    Args:
        answers: a cell's answers.
        bins: number of equal-width bins.
        seed: of the resamples.
    """
    curve = reliability_diagram(answers.confidence, answers.correct, bins)
    images = int(answers.image.max()) + 1
    place = answers.image * bins + bin_index(answers.confidence, bins)
    count, right = (
        np.bincount(place, weights, images * bins).reshape(images, bins)
        for weights in (None, answers.correct)
    )
    draws = image_weights(images, RESAMPLES, seed).T
    rows = draws @ count
    share = np.divide(draws @ right, rows, out=np.full(rows.shape, np.nan), where=rows > 0)
    low, high = np.full((2, bins), np.nan)
    for number in np.flatnonzero(curve.count):
        low[number], high[number] = np.nanpercentile(share[:, number], (2.5, 97.5))
    ece = expected_calibration_error(answers.confidence, answers.correct, bins)
    return Diagram(*curve, low, high, ece)


def draw(
    cells: pd.DataFrame, diagrams: list[Diagram], looks: dict[str, style.Style], title: str
) -> Figure:
    """Draw the diagrams: a column per strategy, a row per budget, the unpruned model in each.

    Args:
        cells: columns strategy, name, family and budget; one row per diagram.
        diagrams: in the order of `cells`.
        looks: the study's styles.
        title: what the cells have in common.
    """
    from matplotlib import pyplot as plt

    order = list(dict.fromkeys(cells["name"]))
    budgets = pooling.budgets(cells) or [int(cells["budget"].iloc[0])]
    figure, grid = plt.subplots(
        2 * len(budgets),
        len(order),
        figsize=(1.85 * len(order) + 0.6, 3.0 * len(budgets) + 0.5),
        squeeze=False,
        sharex=True,
        sharey="row",
        gridspec_kw={"height_ratios": [3, 1] * len(budgets)},
    )
    for cell, drawn in zip(cells.itertuples(), diagrams, strict=True):
        column = order.index(cell.name)
        reference = cell.family == style.REFERENCE
        for row, budget in enumerate(budgets):
            if reference or cell.budget == budget:
                upper, lower = grid[2 * row][column], grid[2 * row + 1][column]
                _draw_diagram(upper, drawn, looks[cell.strategy].colour)
                _draw_histogram(lower, drawn, looks[cell.strategy].colour)
                upper.set_title(f"{cell.name}\n{cell.budget} tokens", fontsize=9)
    for row in range(len(budgets)):
        grid[2 * row][0].set_ylabel("Accuracy")
        grid[2 * row + 1][0].set_ylabel("Share of\nanswers")
    for axes in grid[-1]:
        axes.set_xlabel("Confidence")
    style.note(
        figure, "Bars: 95 % intervals over resampled images. Below the dashed line: overconfident"
    )
    figure.suptitle(f"Is confidence accuracy? {title}")
    return figure


def _draw_diagram(axes: Axes, drawn: Diagram, colour: str) -> None:
    axes.plot([0, 1], [0, 1], color="0.4", linewidth=0.9, linestyle=(0, (3, 2)), zorder=1)
    centre, width = (drawn.edges[1:] + drawn.edges[:-1]) / 2, np.diff(drawn.edges)
    axes.bar(centre, drawn.accuracy, width, color=colour, alpha=0.25, linewidth=0, zorder=0)
    axes.vlines(drawn.confidence, drawn.low, drawn.high, color=colour, linewidth=1.2)
    axes.plot(drawn.confidence, drawn.accuracy, "o", color=colour, markersize=3.5)
    axes.text(0.04, 0.93, f"ECE {drawn.ece:.3f}", transform=axes.transAxes, fontsize=9, va="top")
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    axes.set_xticklabels(["0", "0.5", "1"])


def _draw_histogram(axes: Axes, drawn: Diagram, colour: str) -> None:
    centre, width = (drawn.edges[1:] + drawn.edges[:-1]) / 2, np.diff(drawn.edges)
    axes.bar(centre, drawn.count / drawn.count.sum(), width, color=colour, linewidth=0)


if __name__ == "__main__":
    cli.run(main, cli.parser(__doc__, "--predictions", "--folder").parse_args())
