"""What changes along with calibration: coverage, saliency, entropy, margins."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunecal.calibration.bins import BinSums, bin_sums
from prunecal.core.errors import RERUN, PrunecalError
from prunecal.statistics.accuracy_matched import Tables, keys_of
from prunecal.statistics.bootstrap import image_weights, interval
from prunecal.statistics.contrasts import FEWEST_CELLS, unseeded
from prunecal.statistics.predictions import Cell, read_cell
from prunecal.statistics.rank_correlation import FLAT, rank_correlation
from prunecal.statistics.scores import Scores
from prunecal.statistics.selectors import Measured
from prunecal.statistics.tables import Rows
from prunecal.storage import files
from prunecal.storage.per_image import PerImage
from prunecal.study.budgets import Budget, kept_tokens

TARGETS = ("accuracy", "ece")
SALIENCY = ("saliency_share", "mean_saliency")
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
PerImageArray = NDArray | list[NDArray]
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


def saliency_tables(
    orders: list[PerImageArray | None],
    budgets: list[Budget],
    saliency: PerImageArray,
    weights: NDArray,
) -> dict[str, NDArray]:
    """Return how salient the kept tokens are, float64 [cells, 1 + R] per metric.

    `mean_saliency` is the mean saliency of an image's kept tokens, `saliency_share` their share of
    the image's whole saliency; both are averaged over questions. NaN for a cell without a ranking,
    whose strategy chooses per question inside the decoder.

    Args:
        orders: per cell int [images, N] in order of selection, or None; a list of arrays [N] where
            images have different numbers of tokens.
        budgets: per cell, tokens kept of each image.
        saliency: float [images, N], or such a list.
        weights: float64 [images, 1 + R], the number of questions that each image adds.
    """
    rows = weights.sum(axis=0)
    found = {name: np.full((len(orders), len(rows)), np.nan) for name in SALIENCY}
    total = _sums(saliency)
    for index, (order, budget) in enumerate(zip(orders, budgets, strict=True)):
        if order is not None:
            if isinstance(order, list) or isinstance(budget, str):
                numbers = np.array([kept_tokens(budget, len(tokens)) for tokens in saliency])
                pairs = zip(saliency, order, numbers.tolist(), strict=True)
                held = _sums([values[tokens[:number]] for values, tokens, number in pairs])
            else:
                numbers = np.array(budget)
                kept = np.take_along_axis(saliency, order[:, :budget].astype(np.intp), axis=1)
                held = _sums(kept)
            found["saliency_share"][index] = (held / total) @ weights / rows
            found["mean_saliency"][index] = (held / numbers) @ weights / rows
    return found


def _sums(values: PerImageArray) -> NDArray:
    """Return the sum over each image's tokens, float64 [images]."""
    if isinstance(values, list):
        return np.array([image.sum(dtype=np.float64) for image in values])
    return values.sum(axis=1, dtype=np.float64)


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


class Sources:
    """The files of a study by model and data set, which their paths name.

    Args:
        rankings: …/{model}/{dataset}/{strategy}/ranking.safetensors.
        features: …/{model}/{dataset}/features.safetensors.
        unpruned: predictions.parquet of the unpruned model.
    """

    def __init__(self, rankings: list[Path], features: list[Path], unpruned: list[Path]):
        self._rankings = {path.parts[-4:-1]: path for path in rankings}
        self._features = {path.parts[-3:-1]: path for path in features}
        cells = map(read_cell, unpruned)
        self._unpruned = {(c.facts["model"], c.facts["dataset"]): c for c in cells}

    def unpruned(self, task: tuple[str, str]) -> Cell:
        """Return the predictions of the unpruned model.

        Raises:
            PrunecalError: they were not given.
        """
        if task not in self._unpruned:
            raise PrunecalError(
                f"predictions of the unpruned model {task[0]} on {task[1]} are missing; add them "
                "to --unpruned"
            )
        return self._unpruned[task]

    def saliency(self, task: tuple[str, str], images: list[str]) -> PerImageArray | None:
        """Return the images' saliency, float32 [images, N], or a list where they differ in N.

        None of imported cells alone.
        """
        if task not in self._features:
            return None
        return _read(self._features[task], "saliency", images)

    def order(
        self, task: tuple[str, str], strategy: str, images: list[str], budget: Budget
    ) -> PerImageArray | None:
        """Return the images' tokens in order of selection, int16 [images, N], if they are ranked.

        Of a strategy whose budgets are not nested int16 [images, K]; None if it merges tokens or
        ranks for each question.

        A list of arrays where the images differ in N.
        """
        path = self._rankings.get((*task, strategy))
        if path is None:
            return None
        file = files.open_arrays(path)
        names = [] if "question" in file.facts else file.keys()
        name = "order" if "order" in names else f"kept/{budget}"
        if name not in names:
            return None
        values = file.get_tensor(name)
        if name == "order" or values.ndim > 1:
            return _read(path, name, images)
        kept = [kept_tokens(budget, count) for count in file.get_tensor("tokens").tolist()]
        parts = np.split(values, np.cumsum(kept)[:-1])
        return [parts[row] for row in _places(file, images, path)]


def _read(path: Path, name: str, images: list[str]) -> PerImageArray:
    """Read an array's part of some images, and nothing else: features may be bfloat16."""
    file = files.open_arrays(path)
    rows = _places(file, images, path)
    values = file.get_tensor(name)
    if values.ndim > 1:
        return values[rows]
    parts = PerImage(file, name)
    return [parts[row] for row in rows]


def _places(file: Any, images: list[str], path: Path) -> list[int]:
    place = {image: index for index, image in enumerate(file.facts["image_id"])}
    for image in images:
        if image not in place:
            raise PrunecalError(f"{path} lacks image {image!r}; {RERUN}")
    return [place[image] for image in images]


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
