"""Differences from the unpruned model with their intervals: a forest plot."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from prunecal.calibration import catalogue
from prunecal.core import cli
from prunecal.figures import pooling, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def main(arguments: argparse.Namespace) -> None:
    """Draw the differences in one metric."""
    style.use()
    table = pooling.read(arguments.comparisons)
    looks = style.styles(table)
    rows = pooling.headline(table, [arguments.metric])
    pooled = pooling.pruned(pooling.pool_seeds(rows, looks, column="delta"))
    figure = draw(pooled, looks, arguments.metric)
    style.save(figure, arguments.folder, f"forest_{arguments.metric}")


def draw(pooled: pd.DataFrame, looks: dict[str, style.Style], metric: str) -> Figure:
    """Draw a row of panels per data set, a panel per budget, a line per strategy.

    Args:
        pooled: comparisons from `pooling.pool_seeds(column="delta")` without the unpruned model.
        looks: the study's styles.
        metric: the metric's key.
    """
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D

    if pooled.empty:
        return style.nothing("The study has no strategy to compare with the unpruned model.")
    tasks, budgets = pooling.tasks(pooled), pooling.budgets(pooled)
    order = list(dict.fromkeys(pooled.sort_values("place")["series"]))
    figure, grid = plt.subplots(
        len(tasks),
        len(budgets),
        figsize=(2.7 * len(budgets) + 2.2, len(tasks) * (0.27 * len(order) + 1.1) + 0.8),
        squeeze=False,
        sharex="row",
        sharey=True,
    )
    for row, task in zip(grid, tasks, strict=True):
        for axes, budget in zip(row, budgets, strict=True):
            here = pooling.of_task(pooled[pooled["budget"] == budget], task)
            _draw_panel(axes, here, order, looks)
            axes.set_title(f"{pooling.task_title(task, tasks)}, {budget} tokens")
        row[0].set_yticks(range(len(order)), [style.in_lines(name, 2) for name in order])
        row[0].set_ylim(len(order) - 0.4, -0.6)
    for axes in grid[-1]:
        axes.set_xlabel(f"Δ {catalogue.metric_name(metric)}")
    better = catalogue.catalogued(metric).higher_is_better
    side = {True: "; right of the line is better", False: "; left of the line is better", None: ""}
    title = f"Change of {catalogue.metric_name(metric)} from the unpruned model{side[better]}"
    marks = [
        Line2D([], [], marker="o", color="0.3", label=f"differs (adjusted p < {pooling.LEVEL:g})"),
        Line2D([], [], marker="o", color="0.3", markerfacecolor="white", label="not significant"),
        Line2D([], [], color="0.3", linewidth=2, label=style.INTERVALS),
    ]
    style.title_and_legend(figure, title, marks, 3)
    return figure


def _draw_panel(
    axes: Axes, cells: pd.DataFrame, order: list[str], looks: dict[str, style.Style]
) -> None:
    by_name = {look.name: look for look in looks.values()}
    axes.axvline(0, color="black", linewidth=1)
    axes.grid(visible=False, axis="y")
    for cell in cells.itertuples():
        look, y = by_name[cell.series], order.index(cell.series)
        axes.plot([cell.low, cell.high], [y, y], color=look.colour, linewidth=2, alpha=0.7)
        axes.plot(
            cell.delta,
            y,
            marker=look.marker,
            color=look.colour,
            markersize=7,
            markeredgewidth=1.3,
            markerfacecolor=look.colour if cell.p_adjusted < pooling.LEVEL else "white",
        )


if __name__ == "__main__":
    parser = cli.parser(__doc__, "--comparisons", "--folder")
    parser.add_argument("--metric", required=True, help="the metric to compare")
    cli.run(main, parser.parse_args())
