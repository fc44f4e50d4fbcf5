"""The tables of headline metrics, claims and data sets, and a page that searches all cells."""

from __future__ import annotations

import argparse
import base64
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecal.calibration import catalogue
from prunecal.core import cli
from prunecal.figures import labels, naming, pooling
from prunecal.report import html
from prunecal.report import latex as latex_tables
from prunecal.statistics.baselines import baselines
from prunecal.storage import files

if TYPE_CHECKING:
    import pandas as pd

METRICS = ["accuracy", "ece_debiased", "ece", "brier", "aurc"]
KEYS = ["model", "dataset", "strategy", "budget"]
CASE = [
    "model", "dataset", "subset", "quantity", "value", "ci_low", "ci_high", "expect", "verdict",
]  # fmt: skip


def main(arguments: argparse.Namespace) -> None:
    """Write the headline table twice, the tables of claims and data sets, the page of all cells."""
    metrics, comparisons = pooling.read(arguments.metrics), pooling.read(arguments.comparisons)
    table = headline_table(metrics, comparisons)
    written = {
        arguments.csv: table,
        arguments.claims_csv: claims_table(files.read_json(arguments.claims)),
        arguments.datasets_csv: datasets_table(arguments.questions),
    }
    for file, frame in written.items():
        with files.atomic(file, files.read_so_far()) as path:
            frame.to_csv(path, index=False)
    with files.atomic(arguments.latex, files.read_so_far()) as temporary:
        temporary.write_text(latex(table), encoding="utf-8")
    html.write(arguments.page, "cells", title="All cells", **every_cell(metrics))


def headline_table(metrics: pd.DataFrame, comparisons: pd.DataFrame) -> pd.DataFrame:
    """Put the headline metrics of each cell side by side, with their differences from `full`.

    Args:
        metrics: all metrics.
        comparisons: all differences.

    Returns:
        A row per model, data set, strategy (its name for readers; seeds pooled) and budget; per
        metric M the columns M, M_low, M_high, M_delta, M_delta_low, M_delta_high and M_p_adjusted,
        missing where a cell has no comparison.
    """
    from prunecal.figures.style import styles

    looks = styles(metrics)
    values = pooling.pool_seeds(pooling.headline(metrics, METRICS), looks)
    deltas = pooling.pool_seeds(pooling.headline(comparisons, METRICS), looks, column="delta")
    values = values.rename(columns={"series": "strategy"})
    deltas = deltas.rename(columns={"series": "strategy"})
    deltas = deltas.rename(columns={"low": "delta_low", "high": "delta_high"})
    together = values.merge(
        deltas[[*KEYS, "metric", "delta", "delta_low", "delta_high", "p_adjusted"]],
        on=[*KEYS, "metric"],
        how="left",
    )
    parts = ["value", "low", "high", "delta", "delta_low", "delta_high", "p_adjusted"]
    wide = together.pivot(index=[*KEYS, "place", "family"], columns="metric", values=parts)
    order = [(part, metric) for metric in METRICS for part in parts]
    wide = wide.reindex(columns=order)
    wide.columns = [metric if part == "value" else f"{metric}_{part}" for part, metric in order]
    wide = wide.reset_index()
    tasks = [*dict.fromkeys(metrics[["model", "dataset"]].itertuples(index=False, name=None))]
    wide["task"] = [tasks.index(task) for task in zip(wide["model"], wide["dataset"], strict=True)]
    ordered = wide.sort_values(["task", "place", "budget"], kind="stable", ignore_index=True)
    return ordered.drop(columns=["task", "place", "family"])


def claims_table(claims: list[dict[str, Any]]) -> pd.DataFrame:
    """Return a row per comparison by which a claim was judged, one without numbers if none was.

    Args:
        claims: claims.json.
    """
    import pandas as pd

    rows = [
        {"claim": claim["id"], "claim_verdict": claim["verdict"]} | case
        for claim in claims
        for case in claim["evidence"]["numbers"] or [{}]
    ]
    return pd.DataFrame(rows, columns=["claim", "claim_verdict", *CASE])


def datasets_table(paths: list[Path]) -> pd.DataFrame:
    """Return a row per data set: its size and the first of its questions.

    Args:
        paths: questions.parquet of each, in a folder of its name.
    """
    import pandas as pd

    rows = []
    for path in paths:
        columns = ["image_id", "subset", "text", "options", "label"]
        questions = files.read_table(path, columns).to_pandas()
        first = questions.iloc[0]
        base = baselines(questions["options"].tolist(), questions["label"].tolist())
        edition = files.read_facts(path).get("edition")
        rows.append(
            {
                "dataset": path.parent.name,
                **({"edition": edition} if edition else {}),
                "rows": len(questions),
                "distinct": len(questions[["image_id", "text"]].drop_duplicates()),
                "n_images": questions["image_id"].nunique(),
                "subsets": ", ".join(dict.fromkeys(questions["subset"])),
                "first_question": first["text"],
                "options": " / ".join(first["options"]),
                "answer": first["options"][first["label"]],
                "chance": base.chance,
                "constant": base.constant,
                "constant_answer": base.answer,
            }
        )
    return pd.DataFrame(rows)


def latex(table: pd.DataFrame) -> str:
    """Return the headline table for a paper: values, their differences from `full`, stars.

    Args:
        table: from `headline_table`.
    """
    columns = table[KEYS].copy()
    for metric in METRICS:
        columns[metric] = table[metric]
        stars = table[f"{metric}_p_adjusted"].lt(pooling.LEVEL).map({True: "*", False: ""})
        deltas = table[f"{metric}_delta"].map("{:+.4f}".format).str.replace("-", "−") + stars
        columns[f"{metric}_delta"] = deltas.where(table[f"{metric}_delta"].notna())
    star = f"* differs from the unpruned model: adjusted p < {pooling.LEVEL:g}"
    return latex_tables.table(columns, "headline.csv", star)


def every_cell(metrics: pd.DataFrame) -> dict[str, Any]:
    """Return what the page of all cells shows.

    Returns:
        heads of the columns; names, how many of them name a cell; count of the rows; and packed:
        the rows as lines of tab-separated text, deflated, in base64. A row is the cell's names,
        then per metric a number and its interval, empty where there is none.
    """
    keys = ["model", "dataset", "subset", "strategy", "budget"]
    metrics = labels.for_readers(metrics, labels.names_of(metrics))
    measured = sorted(dict.fromkeys(metrics["metric"]), key=labels.metric_place)
    heads = [*map(naming.heading, keys), *map(catalogue.metric_name, measured)]
    return packed(heads, len(keys), cell_rows(metrics, keys, measured))


def packed(heads: list[str], names: int, rows: list[list[str]]) -> dict[str, Any]:
    """Return rows as the page's script unpacks them, see `every_cell`."""
    text = "\n".join("\t".join(" ".join(part.split()) for part in row) for row in rows)
    deflated = zlib.compress(text.encode(), 6)
    return {
        "heads": heads,
        "names": names,
        "count": len(rows),
        "packed": base64.encodebytes(deflated).decode(),
    }


def cell_rows(metrics: pd.DataFrame, keys: list[str], measured: list[str]) -> list[list[str]]:
    """Return a row per cell and subset, in the table's order, see `every_cell`."""
    rows: dict[tuple, list[str]] = {}
    places = {metric: len(keys) + 2 * number for number, metric in enumerate(measured)}
    columns = (metrics[key] for key in (*keys, "metric", "value", "ci_low", "ci_high"))
    for *names, metric, value, low, high in zip(*columns, strict=True):
        key = tuple(names)
        if key not in rows:
            rows[key] = [*map(str, names), *[""] * (2 * len(measured))]
        at = places[metric]
        rows[key][at : at + 2] = _with_interval(value, low, high)
    return list(rows.values())


def _with_interval(value: float, low: float, high: float) -> tuple[str, str]:
    if value != value:
        return "", ""
    number = f"{value:g}" if value == int(value) else f"{value:.4f}"
    return number, "" if low != low or low == high else f"[{low:.3f}, {high:.3f}]"


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the stage's command line."""
    parser = cli.parser(__doc__, "--metrics", "--comparisons")
    parser.add_argument("--claims", type=Path, required=True, help="claims.json")
    parser.add_argument("--questions", type=Path, nargs="+", required=True, help="of all data sets")
    parser.add_argument("--claims-csv", type=Path, required=True, help="table of claims to write")
    parser.add_argument("--datasets-csv", type=Path, required=True, help="their table to write")
    parser.add_argument("--csv", type=Path, required=True, help="headline table to write")
    parser.add_argument("--latex", type=Path, required=True, help="headline table to write")
    parser.add_argument("--page", type=Path, required=True, help="page of all cells to write")
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
