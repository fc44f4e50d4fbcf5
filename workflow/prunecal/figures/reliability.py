"""Reliability diagrams: accuracy against confidence, the histogram of confidences beneath."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import isotonic_regression

from prunecal.calibration import maps
from prunecal.calibration.binned import expected_calibration_error, reliability_diagram
from prunecal.core import cli
from prunecal.figures import cell_selection, pooling, style
from prunecal.statistics.bootstrap import image_folds, image_signs

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

BINS = 15
REPLICATES, GRID = 300, 60
SPLITS = 3


class Diagram(NamedTuple):
    """What one diagram draws."""

    edges: NDArray  # float64 [bins + 1], of the histogram
    count: NDArray  # type: ignore[assignment]  # int64 [bins]; a field, not tuple's method
    confidence: NDArray  # float64 [points], ascending
    accuracy: NDArray  # float64 [points], isotonic regression of correctness on confidence
    grid: NDArray  # float64 [GRID], confidences
    low: NDArray  # float64 [GRID], where 95 % of calibrated models have their curve
    high: NDArray
    ece: float
    miscalibration: float  # parts of the Brier score, cross-fitted over images
    discrimination: float


def main(arguments: argparse.Namespace) -> None:
    """Draw one figure per model and data set."""
    style.use()
    cells = cell_selection.catalogue(arguments.predictions)
    looks = style.styles(cells.drop(columns="path"))
    for task in pooling.tasks(cells):
        rows = cell_selection.in_panels(pooling.of_task(cells, task))
        diagrams = [diagram(cell_selection.read(path), arguments.bins) for path in rows["path"]]
        name = f"reliability_{task[0]}_{task[1]}"
        style.save(draw(rows, diagrams, looks, f"{task[1]}, {task[0]}"), arguments.folder, name)


def diagram(answers: cell_selection.Answers, bins: int = BINS, seed: int = 0) -> Diagram:
    """Compute a reliability diagram by isotonic regression, and where a calibrated model's lies.

    CORP (Dimitriadis, Gneiting and Jordan, PNAS 118, 2021): no bins to choose. Their consistency
    band draws outcomes row by row; here a replicate keeps what the answers about an image have in
    common, see `debiased.ece_if_calibrated`.

    Args:
        answers: a cell's answers.
        bins: number of equal-width bins of the histogram and of ECE.
        seed: of the replicates and of the halves.
    """
    confidence, correct, image = answers
    images = int(image.max()) + 1
    knots, accuracy = maps.pooled(confidence, correct)
    _, group, rows = np.unique(confidence, return_inverse=True, return_counts=True)
    shape = len(knots), images
    residual = sparse.csr_array((confidence - correct, (group, image)), shape=shape)
    shares = knots[:, None] - residual @ image_signs(images, REPLICATES, seed) / rows[:, None]
    grid = np.linspace(knots[0], knots[-1], GRID)
    curves = [
        np.interp(grid, knots, isotonic_regression(np.ascontiguousarray(share), weights=rows).x)
        for share in shares.T
    ]
    low, high = np.quantile(curves, (0.025, 0.975), axis=0)
    # of a run of equal values its ends are enough
    bends = np.ones(len(knots), dtype=bool)
    bends[1:-1] = (accuracy[1:-1] != accuracy[:-2]) | (accuracy[1:-1] != accuracy[2:])
    folds = np.stack([image_folds(images, seed, split) for split in range(SPLITS)])
    mended = maps.cross_fitted(confidence, correct, image, folds, bins)["isotonic"]
    brier, after = ((c - correct) ** 2 for c in (confidence, mended))
    curve = reliability_diagram(confidence, correct, bins)
    return Diagram(
        edges=curve.edges,
        count=curve.count,
        confidence=knots[bends],
        accuracy=accuracy[bends],
        grid=grid,
        low=low,
        high=high,
        ece=expected_calibration_error(confidence, correct, bins),
        miscalibration=float(brier.mean() - after.mean()),
        discrimination=float(correct.var() - after.mean()),
    )


def bins_used(diagrams: list[Diagram]) -> str:
    """Say how many bins of ECE hold an answer, and how many answers the fullest one has."""
    filled = [int((drawn.count > 0).sum()) for drawn in diagrams]
    fullest = [round(100 * drawn.count.max() / drawn.count.sum()) for drawn in diagrams]
    numbers, shares = (
        str(low) if low == high else f"{low} to {high}"
        for low, high in ((min(some), max(some)) for some in (filled, fullest))
    )
    return (
        f"Of the {len(diagrams[0].count)} bins of ECE {numbers} hold answers, "
        f"the fullest one {shares} %"
    )


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
                upper.set_title(
                    f"{style.in_lines(cell.name, width=30)}\n{cell.budget} tokens", fontsize=9
                )
    for row in range(len(budgets)):
        grid[2 * row][0].set(ylabel="Accuracy", ylim=(0, 1), yticks=[0, 0.5, 1])
        grid[2 * row + 1][0].set_ylabel("Share of\nanswers")
    for axes in grid.flat:  # not `sharex`: matplotlib asks each of shared axes for all others
        axes.set(xlim=(0, 1), xticks=[0, 0.5, 1], xticklabels=["0", "0.5", "1"])
        axes.label_outer()
    for axes in grid[-1]:
        axes.set_xlabel("Confidence")
    style.note(
        figure,
        "Band: 95 % interval of a calibrated model's curve. Below the dashed line: "
        f"overconfident. MCB, DSC: miscalibration, discrimination. {bins_used(diagrams)}",
    )
    figure.suptitle(f"Is confidence accuracy? {title}")
    return figure


def _draw_diagram(axes: Axes, drawn: Diagram, colour: str) -> None:
    axes.plot([0, 1], [0, 1], color="0.4", linewidth=0.9, linestyle=(0, (3, 2)), zorder=1)
    axes.fill_between(drawn.grid, drawn.low, drawn.high, color="0.5", alpha=0.25, linewidth=0)
    axes.plot(drawn.confidence, drawn.accuracy, color=colour, linewidth=1.5)
    numbers = {"ECE": drawn.ece, "MCB": drawn.miscalibration, "DSC": drawn.discrimination}
    words = "\n".join(f"{name} {pooling.in_print(value, 3)}" for name, value in numbers.items())
    axes.text(0.04, 0.95, words, transform=axes.transAxes, fontsize=8, va="top")


def _draw_histogram(axes: Axes, drawn: Diagram, colour: str) -> None:
    centre, width = (drawn.edges[1:] + drawn.edges[:-1]) / 2, np.diff(drawn.edges)
    axes.bar(centre, drawn.count / drawn.count.sum(), width, color=colour, linewidth=0)


if __name__ == "__main__":
    parser = cli.parser(__doc__, "--predictions", "--folder")
    parser.add_argument("--bins", type=int, default=BINS, help="bins of ECE")
    cli.run(main, parser.parse_args())
