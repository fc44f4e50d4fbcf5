"""Change of ECE against change of accuracy, and the line that accuracy alone would draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.figures import pooling, style
from prunecal.figures.mechanisms import unpooled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(matched: pd.DataFrame, looks: dict[str, style.Style]) -> Figure:
    """Draw a point per pruned cell and a panel per data set.

    Args:
        matched: matched.csv.
        looks: the study's styles.
    """
    from matplotlib.lines import Line2D

    if matched.empty:
        return style.nothing("The study has no strategy to compare with the unpruned model.")
    tasks = pooling.tasks(matched)
    figure, columns = style.columns_of_panels(len(tasks), 1, (4.8, 4.6), (2.6, 0.4))
    for (axes,), task in zip(columns, tasks, strict=True):
        here = pooling.of_task(matched, task)
        _draw_panel(axes, here, looks)
        sure = here[here["p_adjusted"] < pooling.LEVEL]["beyond"]
        counts = f"{(sure > 0).sum()} above the line, {(sure < 0).sum()} below, of {len(here)}"
        axes.set_title(f"{pooling.task_title(task, tasks)}: {counts}", fontsize=10)
        axes.set_xlabel("Δ Accuracy from the unpruned model (higher is better)")
        axes.set_ylabel("Δ ECE from the unpruned model (lower is better)")
    used = {looks[strategy].name for strategy in matched["strategy"]}
    marks = [
        Line2D(
            [], [], linestyle="", marker=look.marker, color=look.colour, label=unpooled(look.name)
        )
        for look in style.legend_entries(looks)
        if look.name in used
    ]
    dot = {"linestyle": "", "marker": "o", "color": "0.3"}
    marks += [
        Line2D([], [], color="black", linestyle="--", label="accuracy alone: same confidences"),
        Line2D([], [], **dot, label=f"off it (adjusted p < {pooling.LEVEL:g})"),
        Line2D([], [], **dot, markerfacecolor="white", label="not significant"),
    ]
    style.legend_beside(figure, marks)
    style.note(
        figure, "Thin lines: interval, over resampled images, of the distance from the dashed line"
    )
    figure.suptitle("Does ECE change more than the change of accuracy explains?")
    return figure


def _draw_panel(axes: Axes, cells: pd.DataFrame, looks: dict[str, style.Style]) -> None:
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.axvline(0, color="0.6", linewidth=0.8)
    # piecewise linear: the cells' own points and the origin draw it
    line = sorted({(0.0, 0.0), *zip(cells["accuracy_delta"], cells["expected"], strict=True)})
    axes.plot(*zip(*line, strict=True), color="black", linestyle="--", linewidth=1.2, zorder=1)
    for cell in cells.itertuples():
        look = looks[cell.strategy]
        x, middle = cell.accuracy_delta, cell.ece_delta
        ends = cell.expected + cell.ci_low, cell.expected + cell.ci_high
        axes.vlines(x, *ends, color=look.colour, linewidth=0.8, alpha=0.4, zorder=2)
        axes.plot(
            x,
            middle,
            marker=look.marker,
            color=look.colour,
            markersize=6,
            markeredgewidth=1.2,
            markerfacecolor=look.colour if cell.p_adjusted < pooling.LEVEL else "white",
            zorder=3,
        )
