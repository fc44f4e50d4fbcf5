"""ECE before and after recalibration, and at the unpruned model's temperature."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.calibration import catalogue
from prunecal.figures import pooling, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STAGES = {  # label, colour and marker of each metric
    "ece_debiased": ("without recalibration", "#000000", "o"),
    "ece_temperature_transfer": ("at the unpruned model's temperature", "#e69f00", "s"),
    "ece_temperature": ("after its own temperature scaling", "#0072b2", "D"),
    "ece_isotonic": ("after isotonic regression", "#009e73", "^"),
    "ece_histogram": ("after histogram binning", "#cc79a7", "v"),
}

KEPT = {"ece_temperature": "own", "ece_temperature_transfer": "unpruned's"}


def draw(
    metrics: pd.DataFrame, correlations: pd.DataFrame, looks: dict[str, style.Style]
) -> Figure:
    """Draw a row per strategy and a panel per data set and budget.

    Args:
        metrics: metrics.parquet.
        correlations: correlations.csv, which says whether the order of the strategies survives.
        looks: the study's styles.
    """
    from matplotlib import pyplot as plt

    pooled = pooling.pool_seeds(pooling.headline(metrics, list(STAGES)), looks)
    budgets = pooling.budgets(pooled)
    if not budgets:
        return style.nothing("The study has no strategy that drops tokens: nothing to recalibrate.")
    tasks = pooling.tasks(pooled)
    order = list(dict.fromkeys(pooled.sort_values("place")["series"]))
    figure, grid = plt.subplots(
        len(tasks),
        len(budgets),
        figsize=(2.7 * len(budgets) + 2.2, len(tasks) * (0.27 * len(order) + 1.4) + 1),
        squeeze=False,
        sharex="row",
        sharey=True,
    )
    for row, task in zip(grid, tasks, strict=True):
        here = pooling.of_task(pooled, task)
        for axes, budget in zip(row, budgets, strict=True):
            cells = here[(here["budget"] == budget) | (here["family"] == style.REFERENCE)]
            _draw_panel(axes, cells, order)
            kept = pooling.order_kept(correlations, task, budget, KEPT)
            axes.set_title(
                f"{pooling.task_title(task, tasks)}, {budget} tokens\n{kept}", fontsize=9
            )
        row[0].set_yticks(range(len(order)), order)
        row[0].set_ylim(len(order) - 0.4, -0.6)
        row[0].set_xlim(left=min(0.0, here["value"].min()))
    for axes in grid[-1]:
        axes.set_xlabel(catalogue.catalogued("ece_debiased").axis_label)
    handles, _ = grid[0][0].get_legend_handles_labels()
    handles.append(plt.Line2D([], [], color="0.3", linewidth=1.2, label=style.INTERVALS))
    title = (
        "ECE before and after recalibration\nρ: rank correlation of the strategies' order after "
        "temperature scaling with that before"
    )
    style.title_and_legend(figure, title, handles, 2)
    return figure


def _draw_panel(axes: Axes, cells: pd.DataFrame, order: list[str]) -> None:
    axes.grid(visible=False, axis="y")
    spread = dict(zip(STAGES, (-0.3, -0.15, 0, 0.15, 0.3), strict=True))
    for metric, (label, colour, marker) in STAGES.items():
        here = cells[cells["metric"] == metric]
        y = [order.index(series) + spread[metric] for series in here["series"]]
        axes.hlines(y, here["low"], here["high"], color=colour, linewidth=1.2, alpha=0.6)
        axes.plot(here["value"], y, marker, color=colour, markersize=4, label=label)
