"""Metrics against the budget: a line per strategy, the unpruned model as a band.

Answers without an image are a dotted line: what the language prior alone gives.
"""

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


def main(arguments: argparse.Namespace) -> None:
    """Draw one figure per metric, a panel per data set."""
    style.use()
    table = pooling.read(arguments.metrics)
    looks = style.styles(table)
    for metric in arguments.draw:
        curves = pooling.pool_seeds(pooling.headline(table, [metric], blind=True), looks)
        style.save(draw(curves, looks, metric), arguments.folder, f"budget_{metric}")


def dodge(budgets: list[int], count: int, number: int) -> np.ndarray:
    """Return where the points of one of `count` strategies stand, so that intervals do not overlap.

    The points of a budget spread over at most 40 % of the smallest gap on the logarithmic axis.

    Args:
        budgets: ascending.
        count: strategies drawn.
        number: which of them, from 0.

    Returns:
        float64 [len(budgets)].
    """
    places = np.log(np.asarray(budgets, dtype=float))
    gap = np.diff(places).min() if len(places) > 1 else 0.5
    share = (number - (count - 1) / 2) / count if count > 1 else 0.0
    return np.exp(places + 0.4 * gap * share)


def draw(curves: pd.DataFrame, looks: dict[str, style.Style], metric: str) -> Figure:
    """Draw one metric of pooled cells against the budget.

    Args:
        curves: from `pooling.pool_seeds`, one metric.
        looks: the study's styles.
        metric: its key.
    """
    curves = curves[curves["value"].notna()]
    if curves.empty:
        return style.nothing(f"{catalogue.metric_name(metric)}: no cell of this study recorded it.")
    tasks = pooling.tasks(curves)
    budgets = pooling.budgets(curves)
    if not budgets:
        return style.nothing("The study has no strategy that drops tokens: nothing to draw.")
    figure, columns = style.columns_of_panels(len(tasks), 1, (4.3, 3.9), (2.4, 0), sharex=True)
    for (axes,), task in zip(columns, tasks, strict=True):
        _draw_panel(axes, pooling.of_task(curves, task), looks)
        axes.set_title(pooling.task_title(task, tasks))
        if axes.get_ylim()[1] > 1 >= curves["high"].max():  # of a share, no more is possible
            axes.set_ylim(top=1)
            for line in axes.lines:  # markers at 1 stay whole
                line.set_clip_on(False)
        axes.set_xscale("log")
        axes.set_xticks(budgets, [str(budget) for budget in budgets])
        axes.minorticks_off()
        axes.set_xlabel("Visual tokens kept (budget)")
        axes.set_ylabel(catalogue.catalogued(metric).axis_label)
    style.legend_beside(figure, *style.drawn(figure))
    style.note(figure, f"Bars and band: {style.INTERVALS}")
    figure.suptitle(f"{catalogue.metric_name(metric)} against the budget of visual tokens")
    return figure


def _draw_panel(axes: Axes, curves: pd.DataFrame, looks: dict[str, style.Style]) -> None:
    by_name = {look.name: look for look in looks.values()}
    for row in pooling.reference(curves).itertuples():
        look = by_name[row.series]
        axes.axhline(row.value, color=look.colour, linewidth=1.2, label=look.name, zorder=1)
        axes.axhspan(row.low, row.high, color=look.colour, alpha=0.09, linewidth=0, zorder=0)
    for row in curves[curves["family"] == style.BLIND].itertuples():
        look = by_name[row.series]
        axes.axhline(row.value, color=look.colour, linestyle=":", label=look.name, zorder=1)
    pruned = pooling.pruned(curves)
    order = list(pruned["series"].unique())
    for number, name in enumerate(order):
        line = pruned[pruned["series"] == name].sort_values("budget")
        x = dodge(pooling.budgets(pruned), len(order), number)
        x = x[np.isin(pooling.budgets(pruned), line["budget"])]
        look = by_name[name]
        axes.vlines(x, line["low"], line["high"], color=look.colour, linewidth=1.1, alpha=0.75)
        axes.plot(x, line["value"], label=name, **look.line())


if __name__ == "__main__":
    parser = cli.parser(__doc__, "--metrics", "--folder")
    parser.add_argument("--draw", nargs="+", required=True, help="metrics to draw")
    cli.run(main, parser.parse_args())
