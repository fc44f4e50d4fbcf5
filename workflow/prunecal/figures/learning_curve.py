"""How a model that the workflow trains learned, a row of panels per phase of its training."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from prunecal.core import cli
from prunecal.core.errors import PrunecalError
from prunecal.figures import style
from prunecal.storage import files

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = ["phase", "step", "metric", "value"]
COLOURS = (  # seaborn's palette "colorblind"
    "#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc",
    "#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9",
)  # fmt: skip
SMOOTHED_FROM = 40  # points from which on a running mean is drawn over them


def main(arguments: argparse.Namespace) -> None:
    """Draw one model's learning curve."""
    import pandas as pd

    style.use()
    files.note_read(arguments.curve)
    curve = pd.read_csv(arguments.curve)
    missing = [name for name in COLUMNS if name not in curve.columns]
    if missing:
        raise PrunecalError(
            f"{arguments.curve} lacks the column {missing[0]!r}; train the model again"
        )
    figure = draw(curve, arguments.model)
    style.save(figure, arguments.folder, f"learning_curve_{arguments.model}")


def smooth(values: pd.Series) -> pd.Series:
    """Return the centred running mean over a tenth of the points."""
    window = max(3, len(values) // 10)
    return values.rolling(window, center=True, min_periods=1).mean()


def draw(curve: pd.DataFrame, name: str) -> Figure:
    """Draw a row of panels per phase, in the order in which the file names them.

    Args:
        curve: columns phase, step, metric and value.
        name: the model's name.
    """
    from matplotlib import pyplot as plt

    if curve.empty:
        return style.nothing(f"{name} recorded no learning curve.")
    by_phase = curve.groupby("phase", sort=False)
    phases = [(phase, rows.groupby("metric", sort=False)) for phase, rows in by_phase]
    columns = max(len(metrics) for _, metrics in phases)
    figure, grid = plt.subplots(
        len(phases), columns, figsize=(3.3 * columns + 0.4, 2.3 * len(phases) + 0.5), squeeze=False
    )
    for axes in grid.flat:
        axes.set_axis_off()
    rows = zip(grid, phases, itertools.cycle(COLOURS), strict=False)
    for row, (phase, metrics), colour in rows:
        for axes, (metric, points) in zip(row, metrics, strict=False):
            axes.set_axis_on()
            _draw_panel(axes, points, colour)
            axes.set_title(str(phase))
            axes.set_ylabel(str(metric).replace("_", " ").capitalize())
            axes.set_xlabel("Step")
    figure.suptitle(f"How {name} learned")
    return figure


def _draw_panel(axes: Axes, points: pd.DataFrame, colour: str) -> None:
    many = len(points) >= SMOOTHED_FROM
    look = {"alpha": 0.3, "linewidth": 0.8} if many else {"marker": "o", "markersize": 3.5}
    axes.plot(points["step"], points["value"], color=colour, **look)
    if many:
        axes.plot(points["step"], smooth(points["value"]), color=colour)


if __name__ == "__main__":
    parser = cli.parser(__doc__, "--folder")
    parser.add_argument("--curve", type=Path, required=True, help="learning_curve.csv")
    parser.add_argument("--model", required=True, help="the model's name")
    cli.run(main, parser.parse_args())
