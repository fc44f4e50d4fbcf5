"""ECE against the number of its bins: is a difference between strategies made by the bins?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.calibration.constants import BIN_COUNTS
from prunecal.figures import pooling, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(
    metrics: pd.DataFrame, correlations: pd.DataFrame, looks: dict[str, style.Style], bins: int
) -> Figure:
    """Draw a line per strategy and a panel per data set and budget.

    Args:
        metrics: metrics.parquet.
        correlations: correlations.csv, which says whether the order of the strategies survives.
        looks: the study's styles.
        bins: the number of bins of the metric "ece_debiased".
    """
    from matplotlib import pyplot as plt

    number = {f"ece_{count}_bins_debiased": count for count in BIN_COUNTS} | {"ece_debiased": bins}
    curves = pooling.pool_seeds(pooling.headline(metrics, list(number)), looks)
    curves = curves.assign(bins=curves["metric"].map(number)).sort_values("bins", kind="stable")
    curves = curves.drop_duplicates(["model", "dataset", "series", "budget", "bins"])
    budgets = pooling.budgets(curves)
    if not budgets:
        return style.nothing("The study has no strategy that drops tokens: nothing to compare.")
    tasks = pooling.tasks(curves)
    fewest_and_most = (min(BIN_COUNTS), max(BIN_COUNTS))
    ends = {f"ece_{count}_bins": str(count) for count in fewest_and_most if count != bins}
    figure, grid = plt.subplots(
        len(tasks),
        len(budgets),
        figsize=(2.6 * len(budgets) + 2.4, 2.8 * len(tasks) + 0.8),
        squeeze=False,
        sharex=True,
        sharey="row",
    )
    for row, task in zip(grid, tasks, strict=True):
        here = pooling.of_task(curves, task)
        for axes, budget in zip(row, budgets, strict=True):
            _draw_panel(axes, here, budget, looks)
            axes.set_xscale("log")
            axes.set_xticks(sorted(number.values()), sorted(number.values()), fontsize=8)
            axes.minorticks_off()
            kept = pooling.order_kept(correlations, task, budget, ends)
            axes.set_title(
                f"{pooling.task_title(task, tasks)}, {budget} tokens\n{kept}", fontsize=9
            )
        row[0].set_ylim(bottom=min(0.0, here["value"].min()))
        row[0].set_ylabel("Debiased ECE (lower is better)")
    for axes in grid[-1]:
        axes.set_xlabel("Bins of confidence")
    names = set(curves["series"])
    lines = [
        plt.Line2D([], [], **look.line(), label=look.name)
        for look in style.legend_entries(looks)
        if look.name in names
    ]
    style.legend_beside(figure, lines)
    style.note(figure, "Band: the unpruned model's interval over resampled images")
    figure.suptitle(
        f"ECE against the number of bins; ρ: does the order at 5 and 50 bins follow that at {bins}?"
    )
    return figure


def _draw_panel(
    axes: Axes, curves: pd.DataFrame, budget: int, looks: dict[str, style.Style]
) -> None:
    by_name = {look.name: look for look in looks.values()}
    unpruned = pooling.reference(curves)
    axes.fill_between(
        unpruned["bins"], unpruned["low"], unpruned["high"], color="black", alpha=0.09, linewidth=0
    )
    axes.plot(unpruned["bins"], unpruned["value"], color="black", linewidth=1.2)
    lines = pooling.pruned(curves)
    lines = lines[lines["budget"] == budget].sort_values(["place", "bins"], kind="stable")
    for name in dict.fromkeys(lines["series"]):
        line = lines[lines["series"] == name]
        axes.plot(line["bins"], line["value"], **(by_name[name].line() | {"markersize": 4}))
