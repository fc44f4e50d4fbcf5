"""The change by pruning in one study against that in another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunecal.calibration import catalogue
from prunecal.figures import pooling

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw a row of panels per pair of sides, a panel per metric, a point per cell.

    Args:
        rows: from `statistics.interactions.interactions`.
    """
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D

    cases = [row for row in rows if row["effect"] == "pruning"]
    sides = list(dict.fromkeys((row["a"], row["b"]) for row in cases))
    metrics = list(dict.fromkeys(row["metric"] for row in cases))
    figure, grid = plt.subplots(
        len(sides), len(metrics), figsize=(3.3 * len(metrics) + 0.6, 3.4 * len(sides) + 1),
        squeeze=False,
    )  # fmt: skip
    for line, (a, b) in zip(grid, sides, strict=True):
        for axes, metric in zip(line, metrics, strict=True):
            here = [row for row in cases if (row["a"], row["b"], row["metric"]) == (a, b, metric)]
            every = [row[side] for row in here for side in ("in_a", "in_b")] + [0.0]
            ends = min(every), max(every)
            axes.plot(ends, ends, color="black", linestyle="--", linewidth=1, zorder=1)
            for row in here:
                sure = row["p_adjusted"] < pooling.LEVEL
                axes.plot(row["in_a"], row["in_b"], "o", color="#0072b2", markersize=6,
                          markerfacecolor="#0072b2" if sure else "white", zorder=2)  # fmt: skip
            axes.set_title(f"Δ {catalogue.metric_name(metric)}")
            axes.set_xlabel(f"A: {a}", fontsize=7.5)
            axes.set_ylabel(f"B: {b}", fontsize=7.5)
    marks = [
        Line2D([], [], color="black", linestyle="--", label="the same change in both"),
        Line2D([], [], linestyle="", marker="o", color="#0072b2",
               label=f"differs (adjusted p < {pooling.LEVEL:g})"),
        Line2D([], [], linestyle="", marker="o", color="#0072b2", markerfacecolor="white",
               label="not significant"),
    ]  # fmt: skip
    figure.legend(handles=marks, loc="outside lower center", ncols=3)
    figure.suptitle("Change from the unpruned model: a point per strategy and budget in both")
    return figure
