"""Accuracy and ECE against what a cell computes: tokens that enter a layer, and operations."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from prunecal.calibration import catalogue
from prunecal.core import cli
from prunecal.figures import pooling, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

METRICS = ("accuracy", "ece_debiased")
COST = "tokens_per_layer"
KEYS = ["model", "dataset", "series", "budget"]
ALIKE = 1e-6  # relative difference of operations per token that is rounding


def main(arguments: argparse.Namespace) -> None:
    """Draw a row per metric and a column per model and data set."""
    style.use()
    table = pooling.read(arguments.metrics)
    looks = style.styles(table)
    pooled = pooling.pool_seeds(pooling.headline(table, [*METRICS, COST]), looks)
    operations = per_token(pooling.read_csv(arguments.provenance))
    style.save(draw(with_cost(pooled), looks, operations), arguments.folder, "cost")


def with_cost(pooled: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `METRICS` with the column cost: visual tokens that enter a layer, on mean.

    Args:
        pooled: from `pooling.pool_seeds`, with `METRICS` and `COST`. Rows of cells whose cost is
            not known are left out.
    """
    cost = pooled[pooled["metric"] == COST].set_index(KEYS)["value"].rename("cost")
    rows = pooled[pooled["metric"].isin(METRICS)].join(cost, on=KEYS)
    return rows[rows["cost"] > 0]


def per_token(provenance: pd.DataFrame) -> dict[str, float]:
    """Return GFLOP per visual token and prompt by model, where it is the same in all its cells.

    Args:
        provenance: provenance.csv.
    """
    rates = {}
    rows = provenance.dropna(subset=["decoder_gflop_per_prompt", "visual_tokens_per_layer"])
    for model, cells in rows.groupby("model"):
        rate = cells["decoder_gflop_per_prompt"] / cells["visual_tokens_per_layer"]
        if rate.max() - rate.min() <= ALIKE * rate.max():
            rates[str(model)] = float(rate.median())
    return rates


def draw(
    cells: pd.DataFrame, looks: dict[str, style.Style], operations: dict[str, float]
) -> Figure:
    """Draw a line per strategy over its cost, the unpruned model as a point and a band.

    Args:
        cells: from `with_cost`.
        looks: the study's styles.
        operations: from `per_token`.
    """
    if pooling.pruned(cells).empty:
        return style.nothing("No cell that drops tokens says what it computes: nothing to draw.")
    tasks = pooling.tasks(cells)
    figure, columns = style.columns_of_panels(len(tasks), len(METRICS), (4.2, 3.4), (2.4, 0.6))
    for column, task in zip(columns, tasks, strict=True):
        here = pooling.of_task(cells, task)
        top, bottom = column
        top.sharex(bottom)
        top.tick_params(labelbottom=False)
        for axes, metric in zip(column, METRICS, strict=True):
            _draw_panel(axes, here[here["metric"] == metric], looks)
            axes.set_xscale("log")
            _plain_numbers(axes.xaxis)
            axes.set_ylabel(catalogue.catalogued(metric).axis_label)
        top.set_title(pooling.task_title(task, tasks))
        bottom.set_xlabel("Visual tokens that enter a layer, mean over layers")
        if task[0] in operations:
            _add_operations(top, operations[task[0]])
    style.legend_beside(figure, *style.drawn(figure))
    style.note(figure, f"Bars and band: {style.INTERVALS}. Above: GFLOP per prompt")
    figure.suptitle("Accuracy and ECE against what the decoder computes")
    return figure


def _add_operations(axes: Axes, rate: float) -> None:
    """Add an axis on top with the decoder's operations on visual tokens, GFLOP per prompt."""
    above = axes.secondary_xaxis("top", functions=(lambda x: x * rate, lambda x: x / rate))
    _plain_numbers(above.xaxis)
    above.tick_params(labelsize=7)


def _plain_numbers(axis: Axis) -> None:
    """Label 1, 2 and 5 of each decade of a logarithmic axis in full."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _draw_panel(axes: Axes, cells: pd.DataFrame, looks: dict[str, style.Style]) -> None:
    by_name = {look.name: look for look in looks.values()}
    for row in pooling.reference(cells).itertuples():
        look = by_name[row.series]
        axes.axhspan(row.low, row.high, color=look.colour, alpha=0.09, linewidth=0, zorder=0)
        axes.plot(row.cost, row.value, label=row.series, **look.line() | {"linestyle": ""})
    pruned = pooling.pruned(cells)
    for name in dict.fromkeys(pruned["series"]):
        line = pruned[pruned["series"] == name].sort_values("cost")
        look = by_name[name]
        axes.vlines(line["cost"], line["low"], line["high"], color=look.colour, alpha=0.5)
        axes.plot(line["cost"], line["value"], label=name, **look.line() | {"markersize": 4.5})


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__, "--metrics", "--folder")
    parser.add_argument("--provenance", type=Path, required=True, help="provenance.csv")
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
