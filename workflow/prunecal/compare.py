"""Turn score files into tables: every metric with its interval, every difference with its test.

Writes metrics, comparisons (each as .parquet and .csv) and detectable.csv to a folder. metrics: one
row per model, dataset, subset, strategy, budget and metric, with value, ci_low, ci_high, n and
n_images. comparisons: the same for every pruned cell, with delta, ci_low, ci_high, p and p_holm
against the unpruned model on the same resamples. Both have the columns family and one per strategy
parameter, null where it does not apply. detectable: the smallest difference that data of this size
can show, and the number of resamples, per model, dataset, subset and metric.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from prunecal import console, store
from prunecal.errors import PrunecalError
from prunecal.scores import Scores, read_scores
from prunecal.statistics import holm, interval, minimum_detectable, two_sided_p

DESIGN = ("n_visual", "tokens_per_layer")  # set by the design: nothing to test
KEYS = ("model", "dataset", "subset", "strategy", "family")
RESERVED = {*KEYS, "budget", "metric", "value", "delta", "ci_low", "ci_high", "p", "p_holm"}

Rows = list[dict[str, Any]]


def metric_rows(scores: Scores, level: float) -> Rows:
    """Return a row per cell, subset and metric with its percentile interval."""
    rows = []
    for metric in scores.facts["metrics"]:
        value = scores.value(metric)
        low, high = interval(scores.draws(metric), level)
        rows += [
            _keys(scores, cell, subset, metric)
            | {"value": value[at], "ci_low": low[at], "ci_high": high[at]}
            | _counts(subset)
            for at, cell, subset in _places(scores)
        ]
    return rows


def comparison_rows(scores: Scores, level: float) -> Rows:
    """Return a row per pruned cell, subset and metric: its difference from the unpruned model.

    Holm's family is a model, a data set and a metric: all strategies, budgets and subsets. A
    p-value of 0 stays 0: it says that no draw reached zero, not more (see `two_sided_p`).
    """
    rows = []
    for metric in scores.facts["metrics"]:
        if metric in DESIGN:
            continue
        value, draws = scores.value(metric), _differences(scores, metric)
        delta = value - value[scores.reference]
        low, high = interval(draws, level)
        p = two_sided_p(draws)
        p[np.isnan(delta)] = np.nan
        pruned = np.arange(len(p)) != scores.reference
        adjusted = np.full(p.shape, np.nan)
        adjusted[pruned] = holm(p[pruned].ravel()).reshape(p[pruned].shape)
        numbers = {"delta": delta, "ci_low": low, "ci_high": high, "p": p, "p_holm": adjusted}
        rows += [
            _keys(scores, cell, subset, metric)
            | {name: table[at] for name, table in numbers.items()}
            | _counts(subset)
            for at, cell, subset in _places(scores)
            if at[0] != scores.reference
        ]
    return rows


def detectable_rows(scores: Scores) -> Rows:
    """Return a row per subset and metric: the median over cells of what could be detected."""
    rows = []
    for metric in scores.facts["metrics"]:
        if metric in DESIGN:
            continue
        size = minimum_detectable(np.delete(_differences(scores, metric), scores.reference, axis=0))
        for index, subset in enumerate(scores.subsets):
            defined = size[np.isfinite(size[:, index]), index]
            rows.append(
                {
                    "model": scores.facts["model"],
                    "dataset": scores.facts["dataset"],
                    "subset": subset["name"],
                    "metric": metric,
                    "minimum_detectable": np.median(defined) if len(defined) else None,
                    "resamples": scores.facts["resamples"][metric],
                    **_counts(subset),
                }
            )
    return rows


def parameter_names(studied: list[Scores]) -> list[str]:
    """List the parameters of all strategies, sorted.

    Raises:
        PrunecalError: a parameter is called like a column of the tables.
    """
    names = {name for scores in studied for cell in scores.cells for name in cell["parameters"]}
    for name in sorted(names & RESERVED):
        raise PrunecalError(f"a strategy's parameter {name!r} is also a column; rename it")
    return sorted(names)


def main(arguments: argparse.Namespace) -> None:
    """Write the tables."""
    studied = read_scores(arguments.scores)
    parameters = parameter_names(studied)
    facts = {
        "level": arguments.level,
        "scores": [
            {key: scores.facts[key] for key in ("model", "dataset", "bins", "seed", "resamples")}
            for scores in studied
        ],
    }
    level = arguments.level
    metrics = [row for scores in studied for row in metric_rows(scores, level)]
    comparisons = [row for scores in studied for row in comparison_rows(scores, level)]
    for name, rows, numbers in (
        ("metrics", metrics, ("value", "ci_low", "ci_high")),
        ("comparisons", comparisons, ("delta", "ci_low", "ci_high", "p", "p_holm")),
    ):
        table = _table(rows, parameters, numbers)
        store.write_table(arguments.folder / f"{name}.parquet", table, facts)
        _write_csv(arguments.folder / f"{name}.csv", table)
    detectable = [row for scores in studied for row in detectable_rows(scores)]
    _write_csv(arguments.folder / "detectable.csv", pa.Table.from_pylist(detectable))


def _differences(scores: Scores, metric: str) -> NDArray:
    draws = scores.draws(metric)
    return draws - draws[scores.reference]


def _places(scores: Scores) -> list[tuple[tuple[int, int], dict[str, Any], dict[str, Any]]]:
    return [
        ((i, j), cell, subset)
        for i, cell in enumerate(scores.cells)
        for j, subset in enumerate(scores.subsets)
    ]


def _keys(
    scores: Scores, cell: dict[str, Any], subset: dict[str, Any], metric: str
) -> dict[str, Any]:
    return {
        "model": scores.facts["model"],
        "dataset": scores.facts["dataset"],
        "subset": subset["name"],
        "strategy": cell["strategy"],
        "family": cell["family"],
        **cell["parameters"],
        "budget": cell["budget"],
        "metric": metric,
    }


def _counts(subset: dict[str, Any]) -> dict[str, int]:
    return {"n": subset["n"], "n_images": subset["n_images"]}


def _table(rows: Rows, parameters: list[str], numbers: tuple[str, ...]) -> pa.Table:
    order = [*KEYS, *parameters, "budget", "metric", *numbers, "n", "n_images"]
    return pa.table({name: _column([row.get(name) for row in rows], name) for name in order})


def _column(values: list[Any], name: str) -> pa.Array:
    """Return a column; NaN becomes null, whole numbers join fractions, other mixtures are text."""
    if name in ("n", "n_images", "budget"):
        return pa.array(values, pa.int64())
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float, np.float64} and kinds != {int}:
        return pa.array(values, pa.float64(), from_pandas=True)
    if len(kinds) > 1 or kinds & {list, dict}:
        values = [None if value is None else store.canonical_json(value) for value in values]
    return pa.array(values)


def _write_csv(path: Path, table: pa.Table) -> None:
    with store.atomic(path) as temporary:
        pyarrow.csv.write_csv(table, temporary)


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the stage's command line."""
    parser = console.parser(__doc__)
    parser.add_argument("--scores", type=Path, nargs="+", required=True, help="files of the study")
    parser.add_argument("--folder", type=Path, required=True, help="where the tables go")
    parser.add_argument("--level", type=float, default=0.95, help="of the intervals")
    return parser.parse_args(command)


if __name__ == "__main__":
    console.run(main, arguments_of())
