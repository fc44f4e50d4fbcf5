"""The tables of headline metrics, claims and data sets, and the page of all cells."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecal.core import cli
from prunecal.figures import pooling
from prunecal.report import all_cells
from prunecal.report import latex as latex_tables
from prunecal.statistics.baselines import baselines
from prunecal.storage import files
from prunecal.study import short_answers

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
    all_cells.write(arguments.page, metrics, pooling.read_csv(arguments.provenance))


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
        questions = files.read_table(path, columns, ["answers"]).to_pandas()
        first = questions.iloc[0]
        short = short_answers.has_short_answers(path.parent.name)
        base = baselines(questions["options"].tolist(), questions["label"].tolist(), short=short)
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
                "options": " / ".join(first.get("answers", first["options"])),
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


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the stage's command line."""
    parser = cli.parser(__doc__, "--metrics", "--comparisons")
    parser.add_argument("--claims", type=Path, required=True, help="claims.json")
    parser.add_argument("--questions", type=Path, nargs="+", required=True, help="of all data sets")
    parser.add_argument("--provenance", type=Path, required=True, help="provenance.csv")
    parser.add_argument("--claims-csv", type=Path, required=True, help="table of claims to write")
    parser.add_argument("--datasets-csv", type=Path, required=True, help="their table to write")
    parser.add_argument("--csv", type=Path, required=True, help="headline table to write")
    parser.add_argument("--latex", type=Path, required=True, help="headline table to write")
    parser.add_argument("--page", type=Path, required=True, help="page of all cells to write")
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
