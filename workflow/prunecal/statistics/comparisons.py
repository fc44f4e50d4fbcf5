"""Every metric with its interval, and its difference from the unpruned model with its test."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunecal.calibration.catalogue import catalogued
from prunecal.core.errors import PrunecalError
from prunecal.statistics.bootstrap import interval, normal_interval
from prunecal.statistics.calibrated import may_be_calibrated
from prunecal.statistics.scores import BIN_USE, Scores
from prunecal.statistics.significance import (
    FEWEST_IMAGES,
    minimum_detectable,
    p_values,
    smallest_margin,
)
from prunecal.statistics.subsets import OUTCOME
from prunecal.statistics.tables import Rows

MOST_UNDEFINED = 0.01  # of the resamples of a metric that is tested
DESIGN = ("n_visual", "tokens_per_layer")  # set by the design: nothing to test
KEYS = ("model", "dataset", "subset", "strategy", "family")
COUNTS = ("n", "n_images")
NUMBERS = {  # of the tables
    "metrics": ("value", "ci_low", "ci_high", *COUNTS, *BIN_USE),
    "comparisons": ("delta", "ci_low", "ci_high", "p", "p_adjusted", *COUNTS),
}
RESERVED = {*KEYS, "budget", "share", "metric", *NUMBERS["metrics"], *NUMBERS["comparisons"]}


def columns(table: str, parameters: list[str], *, shares: bool = False) -> list[str]:
    """List the columns of metrics or comparisons.

    Args:
        table: "metrics" or "comparisons".
        parameters: names of strategies' parameters.
        shares: whether images of some model have different numbers of tokens.
    """
    share = ["share"] if shares else []
    return [*KEYS, *parameters, "budget", *share, "metric", *NUMBERS[table]]


def have_shares(studied: list[Scores]) -> bool:
    """Tell whether the images of some model have different numbers of tokens."""
    return any("share" in cell for scores in studied for cell in scores.cells)


def metric_rows(scores: Scores, level: float) -> Rows:
    """Return a row per cell, subset and metric with its interval, see `Metric.interval`.

    One image gives no interval. Where all or no answers are right, the resamples of accuracy cannot
    vary; its interval then reaches to the share of images that could, by chance, all be without (or
    with) an error: an exact binomial bound (Clopper and Pearson 1934) that counts an image as one
    observation. Debiasing leaves some noise where there is nothing but noise; so the interval of a
    debiased ECE begins at 0 where the test of calibration does not reject.
    """
    rows = []
    images, use, calibrated = _images(scores), scores.bin_use(), may_be_calibrated(scores, level)
    for metric in scores.facts["metrics"]:
        value = scores.value(metric)
        low, high = _interval(
            value, scores.draws(metric), level, images, catalogued(metric).interval
        )
        if catalogued(metric).interval == "debiased":
            low = np.where(calibrated, np.minimum(low, 0.0), low)
        if metric == "accuracy":
            bound = ((1 - level) / 2) ** (1 / images)
            low = np.where((value == 1) & (images > 1), bound, low)
            high = np.where((value == 0) & (images > 1), 1 - bound, high)
        rows += [
            _keys(scores, cell, subset, metric)
            | {"value": value[at], "ci_low": low[at], "ci_high": high[at]}
            | _counts(subset)
            | {name: table[at].item() for name, table in use.items()}
            for at, cell, subset in _places(scores, metric)
        ]
    return rows


def comparison_rows(scores: Scores, level: float) -> Rows:
    """Return a row per pruned cell, subset and metric: its difference from the unpruned model.

    `p` is the p-value of the difference alone, `p_adjusted` that within its family of tests: all
    strategies and budgets of one model, data set, metric and subset (see `step_down`). The family
    of subset "all" is the primary one; those of other subsets are exploratory, and subsets chosen
    by outcome are not tested at all. One image gives no
    interval, and fewer than `FEWEST_IMAGES` give no p-values, nor does a metric whose `Metric.test`
    is None or which more than 1 % of the resamples leave undefined.
    """
    rows = []
    images = _images(scores)
    pruned = np.arange(len(scores.cells)) != scores.reference
    by_outcome = [subset["name"].startswith(OUTCOME) for subset in scores.subsets]
    tested_subsets = (images >= FEWEST_IMAGES) & ~np.array(by_outcome)
    for metric in scores.facts["metrics"]:
        if metric in DESIGN:
            continue
        value, draws = scores.value(metric), _differences(scores, metric)
        delta = value - value[scores.reference]
        kind = catalogued(metric).test
        low, high = _interval(delta, draws, level, images, kind)
        p, adjusted = np.full((2, *delta.shape), np.nan)
        # a metric that many resamples leave undefined (a fitted temperature at its limit) is not
        # tested: what they would have shown is not known
        undefined = np.isnan(draws).mean(axis=-1) > MOST_UNDEFINED
        for subset in np.flatnonzero(tested_subsets) if kind else ():
            tested = np.where(undefined[:, subset], np.nan, delta[:, subset])
            family = tested[pruned], draws[pruned, subset], images[subset]
            p[pruned, subset], adjusted[pruned, subset] = p_values(*family)
        numbers = {"delta": delta, "ci_low": low, "ci_high": high, "p": p, "p_adjusted": adjusted}
        rows += [
            _keys(scores, cell, subset, metric)
            | {name: table[at] for name, table in numbers.items()}
            | _counts(subset)
            for at, cell, subset in _places(scores, metric)
            if at[0] != scores.reference
        ]
    return rows


def detectable_rows(scores: Scores) -> Rows:
    """Return a row per subset and metric: medians over cells of what this study could show.

    `minimum_detectable` is the smallest difference that would be found, `smallest_margin` the
    smallest margin within which equal cells would be shown to lie, each with 80 % power.
    """
    rows, images = [], _images(scores)
    for metric in scores.facts["metrics"]:
        if metric in DESIGN or not catalogued(metric).test:
            continue
        draws = np.delete(_differences(scores, metric), scores.reference, axis=0)
        sizes = {
            "minimum_detectable": minimum_detectable(draws, images),
            "smallest_margin": smallest_margin(draws, images),
        }
        for index, subset in enumerate(scores.subsets):
            medians = {}
            for name, size in sizes.items():
                defined = size[np.isfinite(size[:, index]), index]
                enough = len(defined) and subset["n_images"] >= FEWEST_IMAGES
                medians[name] = np.median(defined) if enough else None
            rows.append(
                {
                    **scores.task,
                    "subset": subset["name"],
                    "metric": metric,
                    **medians,
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


def _images(scores: Scores) -> NDArray:
    """Return the number of images of each subset, int [subsets]."""
    return np.array([subset["n_images"] for subset in scores.subsets])


def _interval(
    value: NDArray, draws: NDArray, level: float, images: NDArray, kind: str | None
) -> NDArray:
    """Return the interval of [cells, subsets]; none where a subset has one image or `kind` is None.

    Draws are float32: an end that differs from the value by less than their rounding is the value.
    """
    if kind is None:
        return np.full((2, *value.shape), np.nan)
    if kind == "normal":
        ends = normal_interval(value, draws, level)
    else:
        ends = interval(draws, level)
        ends = np.where(np.isclose(ends, value, rtol=1e-6, atol=1e-7), value, ends)
    if kind in ("non-negative", "debiased"):
        ends = np.maximum(ends, 0.0)
    return np.where(images > 1, ends, np.nan)


def _differences(scores: Scores, metric: str) -> NDArray:
    draws = scores.draws(metric)
    return draws - draws[scores.reference]


def _places(
    scores: Scores, metric: str
) -> list[tuple[tuple[int, int], dict[str, Any], dict[str, Any]]]:
    """List each cell and subset that a metric has, with its place in arrays."""
    pooled = scores.pooled if catalogued(metric).pooled else None
    return [
        ((i, j), cell, subset)
        for i, cell in enumerate(scores.cells)
        for j, subset in enumerate(scores.subsets)
        if pooled in (None, j)
    ]


def _keys(
    scores: Scores, cell: dict[str, Any], subset: dict[str, Any], metric: str
) -> dict[str, Any]:
    return {
        **scores.task,
        "subset": subset["name"],
        "strategy": cell["strategy"],
        "family": cell["family"],
        **cell["parameters"],
        "budget": cell["budget"],
        "share": _share(cell),
        "metric": metric,
    }


def _share(cell: dict[str, Any]) -> float | None:
    """Return the share of visual tokens that a cell keeps, a mean over images where they differ."""
    if "share" in cell or not cell.get("visual_tokens"):
        return cell.get("share")
    return cell["budget"] / cell["visual_tokens"]


def _counts(subset: dict[str, Any]) -> dict[str, int]:
    return {name: subset[name] for name in COUNTS}
