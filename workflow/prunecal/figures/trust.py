"""What is shown of every strategy and budget, and the risk at the unpruned model's threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.figures import pooling, style
from prunecal.statistics.thresholds import RISK
from prunecal.statistics.trust import NO_WORSE, UNKNOWN, WORSE

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REFIT = "refitted"
LOOKS = {  # state: colour and words, from good to bad
    NO_WORSE: ("#7fb6dd", "no worse than unpruned by more than the margins"),
    REFIT: ("#d6e9f5", "no worse once one temperature is refitted"),
    UNKNOWN: ("#ffffff", "cannot be told"),
    WORSE: ("#f4b183", "worse than unpruned by more than a margin"),
}


def state(cell: Mapping[str, str]) -> str:
    """Return which of the four states a row of trust_cells.csv is in."""
    refit = cell["verdict"] != NO_WORSE and cell["verdict_recalibrated"] == NO_WORSE
    return REFIT if refit else cell["verdict"]


def draw(cells: pd.DataFrame, risks: pd.DataFrame) -> Figure:
    """Draw a panel per model and data set: a square per strategy and budget.

    Args:
        cells: trust_cells.csv with the columns series (the strategy's name for readers) and place.
        risks: model, dataset, series, budget and risk, the share of wrong answers among those
            accepted by the unpruned model's threshold for `RISK`.
    """
    from matplotlib.patches import Patch

    if cells.empty:
        return style.nothing("The study has no strategy to compare with the unpruned model.")
    tasks = pooling.tasks(cells)
    names = list(cells.sort_values("place")["series"].unique())
    figure, columns = style.columns_of_panels(
        len(tasks), 1, (3.6, 0.32 * len(names) + 1.1), (2.4, 0.7), sharey=True
    )
    for (axes,), task in zip(columns, tasks, strict=True):
        _draw_panel(axes, pooling.of_task(cells, task), pooling.of_task(risks, task), names)
        axes.set_title(pooling.task_title(task, tasks))
        axes.set_xlabel("Visual tokens kept")
    patches = [
        Patch(facecolor=colour, edgecolor="0.6", label=words) for colour, words in LOOKS.values()
    ]
    figure.legend(handles=patches, loc="outside upper center", ncols=2)
    style.note(
        figure,
        "Numbers: wrong among the answers accepted at the unpruned model's threshold for "
        f"{100 * RISK:g} % risk",
    )
    return figure


def _draw_panel(axes: Axes, cells: pd.DataFrame, risks: pd.DataFrame, names: list[str]) -> None:
    from matplotlib.patches import Rectangle

    budgets = sorted(cells["budget"].unique(), reverse=True)
    axes.set(xlim=(-0.5, len(budgets) - 0.5), ylim=(len(names) - 0.5, -0.5))
    axes.set_xticks(range(len(budgets)), [str(budget) for budget in budgets])
    axes.set_yticks(range(len(names)), [style.in_lines(name, 2) for name in names])
    axes.grid(visible=False)
    axes.tick_params(length=0)
    share = risks.set_index(["series", "budget"])["risk"]
    for cell in cells.to_dict("records"):
        x, y = budgets.index(cell["budget"]), names.index(cell["series"])
        colour = LOOKS[state(cell)][0]
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor="0.6"))
        risk = share.get((cell["series"], cell["budget"]))
        if risk is not None and risk == risk:
            axes.text(x, y, f"{100 * risk:.1f} %", ha="center", va="center", fontsize=8)
