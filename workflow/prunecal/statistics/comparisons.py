"""Differences of each cell from the unpruned model, on the same resamples."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunecal.core.errors import PrunecalError
from prunecal.statistics.bootstrap import interval
from prunecal.statistics.scores import Scores
from prunecal.statistics.significance import holm, minimum_detectable, two_sided_p

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
