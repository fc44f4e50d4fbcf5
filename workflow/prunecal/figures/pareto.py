"""Accuracy against ECE: which strategies and budgets no other beats in both."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np

from prunecal.calibration import catalogue
from prunecal.core import cli
from prunecal.figures import pooling, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

GAIN, COST = "accuracy", "ece_debiased"


def main(arguments: argparse.Namespace) -> None:
    """Draw a panel per data set."""
    style.use()
    table = pooling.read(arguments.metrics)
    looks = style.styles(table)
    pooled = pooling.pool_seeds(pooling.headline(table, [GAIN, COST]), looks)
    style.save(draw(trade_off(pooled), looks), arguments.folder, "pareto")


def trade_off(pooled: pd.DataFrame) -> pd.DataFrame:
    """Put accuracy and ECE of each cell side by side and mark the Pareto front per data set.

    Args:
        pooled: from `pooling.pool_seeds`, with both metrics.

    Returns:
        Columns model, dataset, series, family, place, budget, accuracy, ece, and each with _low and
        _high, and `front`: no other cell is at least as good in both and better in one.
    """
    keys = ["model", "dataset", "series", "family", "place", "budget"]
    wide = pooled.pivot_table(
        index=keys, columns="metric", values=["value", "low", "high"], sort=False
    )
    parts = {"value": "", "low": "_low", "high": "_high"}
    wide.columns = [f"{metric}{parts[part]}" for part, metric in wide.columns]
    wide = wide.reset_index()
    wide["front"] = False
    for rows in wide.groupby(["model", "dataset"], sort=False).groups.values():
        here = wide.loc[rows]
        wide.loc[rows, "front"] = pareto_front(here[GAIN].to_numpy(), here[COST].to_numpy())
    return wide


def pareto_front(gain: NDArray, cost: NDArray) -> NDArray:
    """Return which points no other dominates: bool [n].

    A point is dominated if another has no less gain, no more cost, and is better in one of them.

    Args:
        gain: float [n], larger is better.
        cost: float [n], smaller is better.
    """
    as_good = (gain[None] >= gain[:, None]) & (cost[None] <= cost[:, None])
    better = (gain[None] > gain[:, None]) | (cost[None] < cost[:, None])
    return ~(as_good & better).any(axis=1)


def draw(cells: pd.DataFrame, looks: dict[str, style.Style]) -> Figure:
    """Draw ECE over accuracy, a panel per data set; the best corner is at the lower right."""
    tasks, budgets = pooling.tasks(cells), pooling.budgets(cells)
    figure, columns = style.columns_of_panels(len(tasks), 1, (4.6, 4.6), (2.4, 0))
    sizes = dict(zip(budgets, np.linspace(16, 80, len(budgets)), strict=True))
    for (axes,), task in zip(columns, tasks, strict=True):
        _draw_panel(axes, pooling.of_task(cells, task), looks, sizes)
        axes.set_title(pooling.task_title(task, tasks))
        axes.set_xlabel(catalogue.catalogued(GAIN).axis_label)
        axes.set_ylabel(catalogue.catalogued(COST).axis_label)
    style.legend_beside(figure, _legend(looks, sizes))
    style.note(figure, f"Bars: {style.INTERVALS}. Black edge: no cell is better in both")
    figure.suptitle("Accuracy against ECE: right and down is better")
    return figure


def _draw_panel(
    axes: Axes, cells: pd.DataFrame, looks: dict[str, style.Style], sizes: dict[int, float]
) -> None:
    by_name = {look.name: look for look in looks.values()}
    front = cells[cells["front"]].sort_values([GAIN, COST])
    axes.plot(front[GAIN], front[COST], color="0.45", linewidth=5, alpha=0.35, zorder=0)
    for cell in cells.to_dict("records"):
        look = by_name[cell["series"]]
        x, y = cell[GAIN], cell[COST]
        thin = {"color": look.colour, "linewidth": 0.7, "alpha": 0.35, "zorder": 1}
        axes.plot([cell[f"{GAIN}_low"], cell[f"{GAIN}_high"]], [y, y], **thin)
        axes.plot([x, x], [cell[f"{COST}_low"], cell[f"{COST}_high"]], **thin)
        axes.scatter(
            x,
            y,
            s=sizes.get(cell["budget"], 60),
            color=look.colour,
            marker=look.marker,
            edgecolor="black" if cell["front"] else "white",
            linewidth=1 if cell["front"] else 0.6,
            zorder=2 + cell["front"] + 2 * (cell["family"] == style.REFERENCE),
        )


def _legend(looks: dict[str, style.Style], sizes: dict[int, float]) -> list:
    from matplotlib.lines import Line2D

    kinds = [
        Line2D([], [], linestyle="", marker=look.marker, color=look.colour, label=look.name)
        for look in style.legend_entries(looks)
    ]
    tokens = [
        Line2D([], [], linestyle="", marker="o", color="0.6", markersize=size**0.5, label=label)
        for size, label in ((size, f"{budget} tokens") for budget, size in sizes.items())
    ]
    front = Line2D([], [], color="0.45", linewidth=5, alpha=0.35, label="Pareto front")
    return [*kinds, *tokens, front]


if __name__ == "__main__":
    cli.run(main, cli.parser(__doc__, "--metrics", "--folder").parse_args())
