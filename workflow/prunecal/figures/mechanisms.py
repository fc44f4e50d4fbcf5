"""Which properties of cells go with accuracy and which with ECE: correlations and the cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.calibration import catalogue
from prunecal.core.errors import counted
from prunecal.figures import pooling, style
from prunecal.statistics.mechanisms import (
    CENTRED,
    MECHANISMS,
    POOLED_BUDGETS,
    STRATEGY_ENDS,
    TARGETS,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS = {"accuracy": ("#0072b2", "o"), "ece": ("#d55e00", "s")}


def unpooled(name: str) -> str:
    """Return the name of a strategy whose seeds are drawn one by one."""
    return name.partition(" (mean of ")[0]


def draw(correlations: pd.DataFrame) -> Figure:
    """Draw the rank correlations over the pruned cells, a panel per data set.

    Args:
        correlations: correlations.csv.
    """
    from matplotlib.lines import Line2D

    drawn = correlations["metric"].isin((*MECHANISMS, "accuracy"))
    centred = correlations[(correlations["budget"] == CENTRED) & drawn]
    pooled = correlations[(correlations["budget"] == POOLED_BUDGETS) & drawn]
    if centred.empty:
        return style.nothing("The study has too few cells to rank: four are needed.")
    tasks = pooling.tasks(centred)
    order = [name for name in (*MECHANISMS, "accuracy") if name in set(centred["metric"])]
    figure, columns = style.columns_of_panels(
        len(tasks), 1, (4.2, 0.5 * len(order) + 1), (2.2, 1), sharex=True, sharey=True
    )
    for (axes,), task in zip(columns, tasks, strict=True):
        here = pooling.of_task(centred, task)
        _draw_correlations(axes, here, pooling.of_task(pooled, task), order)
        axes.set_title(f"{pooling.task_title(task, tasks)}\n{_counts(correlations, task)}")
        axes.set_xlabel("Rank correlation within budgets (Spearman's ρ)")
    first = columns[0][0]
    first.set_yticks(range(len(order)), [catalogue.metric_name(name) for name in order])
    first.set_ylim(len(order) - 0.4, -0.6)
    first.set_xlim(-1.05, 1.05)
    handles, _ = first.get_legend_handles_labels()
    entries = [
        Line2D([], [], color="0.3", linewidth=3, alpha=0.6, label="interval over images"),
        Line2D([], [], color="0.3", linewidth=1, label="interval over strategies"),
        Line2D([], [], color="0.3", linestyle="", marker="|", markersize=9, label="pooled budgets"),
    ]
    title = "What goes with accuracy, and what with ECE?"
    style.title_and_legend(figure, title, [*handles, *entries], 3)
    return figure


def _counts(correlations: pd.DataFrame, task: tuple[str, str]) -> str:
    """Say how many cells and strategies the correlations of a task rest on."""
    here = pooling.of_task(correlations, task)
    metrics = list(here.loc[here["budget"] == CENTRED, "metric"])
    # accuracy goes with nothing if all cells have the same
    here = here[here["metric"] == ("accuracy" if "accuracy" in metrics else metrics[0])]
    every = here[here["budget"] == CENTRED].iloc[0]
    each = here[~here["budget"].isin([CENTRED, POOLED_BUDGETS])]["cells"]
    a_budget = f", {' to '.join(map(str, sorted({each.min(), each.max()})))} a budget"
    cells = counted(every["cells"], "cell")
    strategies = counted(every["strategies"], "strategy", "strategies")
    return f"{cells} of {strategies}{a_budget if len(each) else ''}"


def _draw_correlations(
    axes: Axes, rows: pd.DataFrame, pooled: pd.DataFrame, order: list[str]
) -> None:
    axes.axvline(0, color="black", linewidth=1)
    axes.grid(visible=False, axis="y")
    for number, target in enumerate(TARGETS):
        colour, marker = LOOKS[target]
        here = rows[rows["with"] == target]
        y = [order.index(metric) + 0.24 * number - 0.12 for metric in here["metric"]]
        axes.hlines(y, here["ci_low"], here["ci_high"], color=colour, linewidth=3, alpha=0.6)
        axes.hlines(y, *(here[end] for end in STRATEGY_ENDS), color=colour, linewidth=1)
        flat = pooled[pooled["with"] == target].set_index("metric")["rho"]
        axes.plot(flat.reindex(here["metric"]), y, "|", color=colour, markersize=9)
        label = f"with {catalogue.metric_name(target)}"
        axes.plot(here["rho"], y, marker, color=colour, markersize=7, label=label)


def _draw_marks(
    axes: Axes,
    cells: pd.DataFrame,
    x: str,
    y: str,
    looks: dict[str, style.Style],
    size: dict[int, float],
) -> None:
    """Draw a mark per cell that has both metrics x and y, as its strategy looks."""
    from matplotlib.markers import MarkerStyle

    cells = cells.dropna(subset=[x, y])
    if cells.empty:
        return
    shown = [looks[label] for label in cells["strategy"]]
    marks = axes.scatter(
        cells[x], cells[y], s=[size[b] for b in cells["budget"]],
        color=[look.colour for look in shown], edgecolor="white", linewidth=0.3,
    )  # fmt: skip
    shapes = [MarkerStyle(look.marker) for look in shown]
    marks.set_paths([one.get_path().transformed(one.get_transform()) for one in shapes])


def draw_cells(cells: pd.DataFrame, looks: dict[str, style.Style]) -> Figure:
    """Draw accuracy and ECE of every cell over each of its properties.

    Args:
        cells: mechanisms.csv.
        looks: the study's styles.
    """
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D

    tasks = pooling.tasks(cells)
    columns = [name for name in MECHANISMS if cells[name].notna().any()]
    if not columns:
        return style.nothing("No property is known of any cell.")
    rows = [(task, target) for task in tasks for target in TARGETS]
    figure, grid = plt.subplots(
        len(rows), len(columns), figsize=(2.1 * len(columns) + 2.6, 1.9 * len(rows) + 0.8),
        squeeze=False, sharey="row",
    )  # fmt: skip
    budgets = sorted(cells["budget"].unique())
    size = {budget: 14 + 36 * place / len(budgets) for place, budget in enumerate(budgets)}
    for line, (task, target) in zip(grid, rows, strict=True):
        here = pooling.of_task(cells, task)
        for axes, name in zip(line, columns, strict=True):
            _draw_marks(axes, here, name, target, looks, size)
            axes.tick_params(labelsize=7)
            if here[name].isna().all():
                axes.text(0.5, 0.5, "has none", transform=axes.transAxes, ha="center", color="0.4")
        line[0].set_ylabel(
            f"{pooling.task_title(task, tasks)}\n{catalogue.metric_name(target)}", fontsize=9
        )
    for axes, name in zip(grid[-1], columns, strict=True):
        axes.set_xlabel(catalogue.catalogued(name).label_with_unit, fontsize=9)
    drawn = {looks[strategy].name for strategy in cells["strategy"]}
    entries = [
        Line2D(
            [], [], linestyle="", marker=look.marker, color=look.colour, label=unpooled(look.name)
        )
        for look in style.legend_entries(looks)
        if look.name in drawn
    ]
    style.legend_beside(figure, entries)
    figure.suptitle(
        "Accuracy and ECE of every cell over its properties; larger marks keep more tokens"
    )
    return figure
