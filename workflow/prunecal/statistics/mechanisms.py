"""What changes along with calibration: coverage, saliency, entropy, margins."""

import functools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from prunecal.calibration.bins import BinSums, bin_sums
from prunecal.statistics.accuracy_matched import Tables, keys_of
from prunecal.statistics.bootstrap import image_weights, interval
from prunecal.statistics.contrasts import FEWEST_CELLS, unseeded
from prunecal.statistics.kept_saliency import SALIENCY, Sources, saliency_tables
from prunecal.statistics.rank_correlation import FLAT, rank_correlation
from prunecal.statistics.scores import Scores
from prunecal.statistics.selectors import Measured
from prunecal.statistics.tables import Rows

TARGETS = ("accuracy", "ece")
MECHANISMS = ("evidence_coverage", *SALIENCY, "entropy", "margin", "yes_rate")
# ECE measured otherwise: does it put the cells in the same order?
ALIKE = (
    "ece_temperature", "ece_temperature_transfer", "ece_5_bins", "ece_10_bins", "ece_20_bins",
    "ece_30_bins", "ece_50_bins", "ece_debiased", "ace", "smece",
)  # fmt: skip
PAIRS = (
    *((metric, target) for metric in MECHANISMS for target in TARGETS),
    ("accuracy", "ece"),
    *((metric, "ece") for metric in ALIKE),
)
STRATEGY_RESAMPLES = 1000
STRATEGY_ENDS = ("strategies_low", "strategies_high")
CENTRED, POOLED_BUDGETS = "within budgets", "pooled"
COLUMNS = {  # of the stage's tables
    "mechanisms": ["model", "dataset", "strategy", "family", "budget"],
    "correlations": [
        "model", "dataset", "budget", "metric", "with", "rho", "ci_low", "ci_high",
        *STRATEGY_ENDS, "cells", "strategies", "resamples",
    ],
    "matched": [
        "model", "dataset", "strategy", "family", "budget", "accuracy_delta", "ece_delta",
        "expected", "beyond", "ci_low", "ci_high", "p", "p_adjusted",
    ],
}  # fmt: skip


def mechanism_rows(scores: Scores, tables: Tables, level: float) -> Rows:
    """Return a row per cell with every metric and its interval."""
    rows = []
    ends = {name: interval(table[:, 1:], level) for name, table in tables.items()}
    for index, cell in enumerate(scores.cells):
        row = keys_of(scores, cell)
        for name in (*TARGETS, *MECHANISMS):
            numbers = (np.nan,) * 3
            if name in tables:
                numbers = (tables[name][index, 0], *ends[name][:, index])
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), numbers, strict=True))
        rows.append(row)
    return rows


def correlation_rows(scores: Scores, tables: Tables, level: float) -> Rows:
    """Return a row per group of pruned cells and pair of metrics.

    The first group, "within budgets", is of all pruned cells, their ranks less the mean rank of
    their budget (a partial rank correlation given the budget): do strategies with more of one have
    more of the other? "pooled" has the same cells without that correction, so a budget that moves
    both makes a correlation; then comes each budget alone. A group of fewer than four cells, or in
    which a metric does not vary, has no row.

    The first interval is over resamples of images: these strategies, other images. The second is
    over resamples of strategies, all budgets and seeds of one together: these images, other
    strategies like these; NaN with fewer than four. There is no p-value: that the correlation of
    these very cells is 0 is of no interest.
    """
    rows = []
    budgets = np.array([cell["budget"] for cell in scores.cells])
    strategies = np.array([unseeded(cell) for cell in scores.cells])
    for group, members in _groups(scores):
        for metric, target in PAIRS:
            if metric not in tables or target not in tables:
                continue
            cells = [index for index in members if np.isfinite(tables[metric][index, 0])]
            draws = min(tables[metric].shape[1], tables[target].shape[1])
            x, y = (tables[name][cells, :draws] for name in (metric, target))
            if len(cells) < FEWEST_CELLS:
                continue
            given = budgets[cells] if group == CENTRED else None
            rho = rank_correlation(x, y, given)
            if np.isnan(rho[0]):
                continue
            low, high = interval(rho[1:], level)
            others = over_strategies(x[:, 0], y[:, 0], strategies[cells], given, STRATEGY_RESAMPLES)
            rows.append(
                {
                    **scores.task,
                    "budget": group,
                    "metric": metric,
                    "with": target,
                    "rho": rho[0],
                    "ci_low": low,
                    "ci_high": high,
                    **dict(zip(STRATEGY_ENDS, interval(others, level), strict=True)),
                    "cells": len(cells),
                    "strategies": len(set(strategies[cells])),
                    "resamples": draws - 1,
                }
            )
    return rows


def _groups(scores: Scores) -> Iterator[tuple[str, list[int]]]:
    pruned = [(i, cell["budget"]) for i, cell in enumerate(scores.cells) if i != scores.reference]
    for group in (CENTRED, POOLED_BUDGETS):
        yield group, [index for index, _ in pruned]
    for budget in sorted({budget for _, budget in pruned}):
        yield str(budget), [index for index, one in pruned if one == budget]


def over_strategies(
    x: NDArray, y: NDArray, strategy: NDArray, given: NDArray | None, resamples: int
) -> NDArray:
    """Return the rank correlation of cells on resamples of their strategies, float64 [resamples].

    Args:
        x: one metric, [cells].
        y: the other, [cells].
        strategy: name of each cell's strategy; all cells of one are drawn together.
        given: as in `rank_correlation`.
        resamples: how many; NaN in all of them with fewer than four strategies.
    """
    _, index = np.unique(strategy, return_inverse=True)
    count = index.max() + 1
    if count < FEWEST_CELLS:
        return np.full(resamples, np.nan)
    # drawing a cell twice is the same as ranking and averaging with twice its weight
    weight = _strategy_weights(count, resamples)[index]
    groups = np.zeros(len(x), dtype=int) if given is None else given
    ranks = []
    for values in (x, y):
        below = (values < values[:, None]) + 0.5 * (values == values[:, None])
        rank = below @ weight
        for group in np.unique(groups):
            members = groups == group
            total = weight[members].sum(axis=0)
            rank[members] -= (weight[members] * rank[members]).sum(axis=0) / np.maximum(total, 1)
        ranks.append(rank)
    rank_x, rank_y = ranks
    scale = np.sqrt((weight * rank_x**2).sum(axis=0) * (weight * rank_y**2).sum(axis=0))
    together = (weight * rank_x * rank_y).sum(axis=0)
    undefined = np.full(resamples, np.nan)
    return np.divide(together, scale, out=undefined, where=scale > FLAT)


@functools.cache
def _strategy_weights(strategies: int, resamples: int) -> NDArray:
    """Return how often each strategy is drawn, the same for all pairs of metrics."""
    return image_weights(strategies, resamples, seed=0)


def measure(scores: Scores, sources: Sources) -> tuple[dict[str, NDArray], BinSums]:
    """Return the tables of all metrics and the bins of the unpruned model."""
    task = scores.facts["model"], scores.facts["dataset"]
    cell = sources.unpruned(task)
    images, image = np.unique(np.array(cell.rows["image_id"]), return_inverse=True)
    drawn = image_weights(len(images), scores.facts["resamples"]["ece"], scores.facts["seed"])
    weights = np.hstack([np.ones((len(images), 1)), drawn])
    measured = Measured(scores, scores.pooled)
    wanted = {name for pair in PAIRS for name in pair} - set(SALIENCY)
    tables = {name: measured.table(name) for name in sorted(wanted & set(scores.facts["metrics"]))}
    ids = images.tolist()
    saliency = sources.saliency(task, ids)
    if saliency is not None:
        budgets = [found["setting"] for found in scores.cells]
        orders = [
            sources.order(task, found["strategy"], ids, budget)
            for found, budget in zip(scores.cells, budgets, strict=True)
        ]
        asked = weights * np.bincount(image)[:, None]
        tables |= saliency_tables(orders, budgets, saliency, asked)
    rows = cell.confidence, cell.correct, image
    return tables, bin_sums(*rows, weights, scores.facts["bins"])
