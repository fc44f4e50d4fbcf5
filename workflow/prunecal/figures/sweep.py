"""One parameter swept, all else equal: accuracy and ECE against it, a line per budget."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from prunecal.calibration import catalogue
from prunecal.core import cli, plugins
from prunecal.figures import naming, pooling, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRICS = ["accuracy", "ece_debiased", "brier", "aurc"]
LABELLED = 10  # values at most that each have a label on the axis


def main(arguments: argparse.Namespace) -> None:
    """Draw the sweep of each parameter."""
    style.use()
    table = pooling.headline(pooling.read(arguments.metrics), METRICS)
    for parameter in arguments.parameters:
        style.save(draw(table, parameter), arguments.folder, f"sweep_{parameter}")


def swept(table: pd.DataFrame, parameter: str) -> pd.DataFrame:
    """Return the cells that differ in one parameter (and the budget) alone.

    Of all groups of strategies that agree in family and other parameters, the one with the most
    values of `parameter` is taken, the first of equals; without two values there is no sweep.

    Args:
        table: metrics.
        parameter: name of a strategy's parameter, for example "alpha".

    Returns:
        The rows of that group; none if nothing is swept.
    """
    groups: dict[tuple, dict[str, object]] = {}
    for label, (family, parameters) in naming.strategies(table).items():
        if parameter in parameters:
            others = {key: value for key, value in parameters.items() if key != parameter}
            groups.setdefault((family, tuple(sorted(others.items()))), {})[label] = parameters
    largest = max(groups.values(), key=len, default={})
    return table[table["strategy"].isin(largest if len(largest) > 1 else {})]


def draw(table: pd.DataFrame, parameter: str) -> Figure:
    """Draw the metrics of a sweep: a row per metric, a column per data set, a line per budget."""
    import seaborn as sns

    cells = swept(table, parameter)
    symbol = naming.SYMBOLS.get(parameter, parameter.replace("_", " "))
    if cells.empty:
        return style.nothing(f"No strategy of this study is run at two values of {symbol}.")
    tasks, budgets = pooling.tasks(table), pooling.budgets(cells)
    metrics = [metric for metric in METRICS if metric in set(cells["metric"])]
    colours = dict(zip(budgets, sns.color_palette("crest", len(budgets)), strict=True))
    figure, columns = style.columns_of_panels(
        len(tasks), len(metrics), (3.9, 2.4), (2, 0.6), sharex=True
    )
    for number, (column, task) in enumerate(zip(columns, tasks, strict=True)):
        for axes, metric in zip(column, metrics, strict=True):
            everything = pooling.of_task(table[table["metric"] == metric], task)
            lines = pooling.of_task(cells[cells["metric"] == metric], task)
            _draw_reference(axes, pooling.reference(everything))
            _draw_lines(axes, lines, parameter, colours)
            values = sorted(lines[parameter].unique())
            if len(values) <= LABELLED:
                axes.set_xticks(values)
            label = catalogue.catalogued(metric).axis_label.replace(" (", "\n(")
            axes.set_ylabel("" if number % style.ACROSS else label)
        column[0].set_title(pooling.task_title(task, tasks))
        column[-1].set_xlabel(f"{symbol} ({parameter.replace('_', ' ')})")
    style.legend_beside(figure, *style.drawn(figure))
    style.note(figure, "Bands: intervals over resampled images")
    figure.suptitle(f"{_who(cells, parameter)}: what {symbol} changes")
    return figure


def _who(cells: pd.DataFrame, parameter: str) -> str:
    """Name what is swept: the family and those other parameters that are not at their default."""
    family, parameters = next(iter(naming.strategies(cells).values()))
    default = plugins.load("strategies", family).Params.model_fields[parameter].default
    return naming.strategy_name(family, parameters | {parameter: default})


def _draw_reference(axes: Axes, rows: pd.DataFrame) -> None:
    for row in rows.itertuples():
        axes.axhline(row.value, color="black", linewidth=1.2, label="Unpruned", zorder=1)
        axes.axhspan(row.ci_low, row.ci_high, color="black", alpha=0.09, linewidth=0, zorder=0)


def _draw_lines(axes: Axes, cells: pd.DataFrame, parameter: str, colours: dict) -> None:
    import seaborn as sns

    for budget, colour in reversed(colours.items()):
        line = cells[cells["budget"] == budget].sort_values(parameter)
        if not line.empty:
            axes.fill_between(
                line[parameter], line["ci_low"], line["ci_high"], color=colour, alpha=0.18, lw=0
            )
            sns.lineplot(
                line, x=parameter, y="value", color=colour, marker="o", mec=colour,
                label=f"{budget} tokens", legend=False, ax=axes,
            )  # fmt: skip


if __name__ == "__main__":
    parser = cli.parser(__doc__, "--metrics", "--folder")
    parser.add_argument("--parameters", nargs="+", required=True, help="of strategies, to sweep")
    cli.run(main, parser.parse_args())
