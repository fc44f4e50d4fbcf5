"""Questions per second: the engine beside one question at a time and beside plain batches."""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from prunecal.core import cli
from prunecal.figures import style
from prunecal.storage import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WAYS = {
    "one_at_a_time": "one question at a time",
    "plain_batch": "plain batches of 8",
    "engine_and_encode": "prunecal, images encoded once",
    "engine": "prunecal, features cached",
}
COLOURS = ("#8a8a8a", "#e69f00", "#56b4e9", "#0072b2")
TABLE = [
    "model",
    "load",
    "budget",
    "rows",
    "distinct",
    "ratio_features_cached",
    "ratio_encoding_included",
    "ratio_over_plain_batch",
    "share_of_matmul",
    "tflops",
    "tokens_per_s",
    "padding",
    "peak_memory_mb",
    "max_logit_difference",
    "same_predictions",
]


def main(arguments: argparse.Namespace) -> None:
    """Draw the figure and write the table."""
    recorded = files.read_json(arguments.benchmark)
    rows = pd.DataFrame(recorded["rows"])
    with files.atomic(arguments.table, files.read_so_far()) as temporary:
        rows[TABLE].to_csv(temporary, index=False, float_format="%.4g")
    style.use()
    style.save(draw(rates(rows), recorded["about"]["device"]), arguments.folder, "speed")


def rates(rows: pd.DataFrame) -> pd.DataFrame:
    """Return questions per second: columns model, load, budget, way, rate.

    Args:
        rows: rows of `python -m prunecal.benchmark`.
    """
    seconds = rows.set_index(["model", "load", "budget"]).filter(like="_s_per_question")
    seconds.columns = [name.removesuffix("_s_per_question") for name in seconds.columns]
    seconds["engine_and_encode"] = seconds["engine"] + seconds["encode"]
    tidy = (1 / seconds[list(WAYS)]).stack()
    return tidy.rename_axis([*seconds.index.names, "way"]).rename("rate").reset_index()


def draw(table: pd.DataFrame, device: str) -> Figure:
    """Draw bars on a logarithmic scale: a row per model, a column per load, a group per budget."""
    import seaborn as sns
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogFormatter

    models, loads = table["model"].unique().tolist(), table["load"].unique().tolist()
    figure, axes = plt.subplots(
        len(models),
        len(loads),
        figsize=(4.6 * len(loads), 0.6 + 2.8 * len(models)),
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for axis, (model, load) in zip(axes.flat, product(models, loads), strict=True):
        part = table[(table["model"] == model) & (table["load"] == load)]
        budgets = sorted(part["budget"].unique(), reverse=True)
        sns.barplot(part, x="budget", y="rate", order=budgets, hue="way", hue_order=list(WAYS),
                    palette=COLOURS, saturation=1, gap=0.05, ax=axis)  # fmt: skip
        handles, names = axis.get_legend_handles_labels()
        axis.get_legend().remove()
        for bars in axis.containers:
            axis.bar_label(bars, fmt=_short, fontsize=7)
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(LogFormatter())  # the usual one writes mathematics
        axis.yaxis.set_minor_formatter(LogFormatter())
        axis.set_title(f"{load}, {model}")
        first = axis.get_subplotspec().is_first_col()
        axis.set_ylabel(f"questions per second ({device})" if first else "")
        axis.set_xlabel("visual tokens kept")
    labels = [WAYS[name] for name in names]
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _short(rate: float) -> str:
    """Show three digits, and whole numbers from 100 on."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


if __name__ == "__main__":
    parser = cli.parser(__doc__, "--folder")
    parser.add_argument("--benchmark", type=Path, required=True, help="benchmark.json")
    parser.add_argument("--table", type=Path, required=True, help="CSV to write")
    cli.run(main, parser.parse_args())
