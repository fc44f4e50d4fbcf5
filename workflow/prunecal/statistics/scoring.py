"""Metrics of a cell, on its images and on resampled ones."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from prunecal.calibration.bins import bin_use
from prunecal.calibration.crossfit import Halves, Splits, temperatures
from prunecal.calibration.maps import cross_fitted
from prunecal.calibration.metrics import compute_all, compute_read
from prunecal.calibration.recalibration import slopes
from prunecal.calibration.sample import Sample
from prunecal.core import cli
from prunecal.statistics import readouts
from prunecal.statistics.bootstrap import image_folds, image_signs, image_weights
from prunecal.statistics.scores import REFERENCE
from prunecal.statistics.subsets import DISTINCT, OUTCOME, POOLED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from prunecal.statistics.predictions import Cell

WHOLE = (POOLED, DISTINCT)  # subsets that are not the data set's own
SPLITS = 3  # of the images into halves, over which cross-fitted metrics are averaged


@dataclass(frozen=True)
class Resamples:
    """The resamples of images that all cells share.

    Attributes:
        image: int [n], index of each row's image.
        weights: float64 [images, 1 + R]: ones, then how often each resample holds each image.
        few: columns of `weights` used for the costly metrics.
        folds: int [splits, images], the half of the images on which a recalibration is fitted.
        signs: 1 or -1 per image, float64 [images, costly], of a calibrated model's replicates.
    """

    image: NDArray
    weights: NDArray
    few: NDArray
    folds: NDArray
    signs: NDArray

    @cached_property
    def halves(self) -> Halves:
        """The halves with the weightings of the costly metrics."""
        return Halves(self.folds, self.few)

    @classmethod
    def of(cls, image_ids: NDArray, resamples: int, costly: int, seed: int) -> Resamples:
        """Draw resamples of images.

        Args:
            image_ids: image of each row, [n].
            resamples: number of resamples R.
            costly: how many of them the costly metrics use.
            seed: of the resamples and of the halves.
        """
        images, image = np.unique(image_ids, return_inverse=True)
        drawn = image_weights(len(images), resamples, seed)
        weights = np.hstack([np.ones((len(images), 1)), drawn])
        few = np.ascontiguousarray(weights[:, : 1 + costly])
        folds = np.stack([image_folds(len(images), seed, split) for split in range(SPLITS)])
        signs = image_signs(len(images), min(costly, resamples), seed)
        return cls(image, weights, few, folds, signs)


def score_cell(
    cell: Cell,
    parts: Mapping[str, NDArray],
    resamples: Resamples,
    reference: Mapping[str, NDArray],
    bins: int,
) -> list[dict[str, NDArray]]:
    """Return every metric of a cell per subset: the value, then the replicates, float64 [1 + r].

    Args:
        cell: the predictions.
        parts: row indices of each subset.
        resamples: the shared resamples.
        reference: per subset the temperatures of the unpruned model, see `cell_temperatures`;
            empty where there is no unpruned model.
        bins: number of calibration bins.
    """
    columns = cell.row_means()
    slope, read = _slopes(cell), readouts.readings(cell)
    results = []
    for name, rows in parts.items():
        groups = {} if cell.yes is None else {"yes": cell.yes[rows], "no": ~cell.yes[rows]}
        rows_of = cell.confidence[rows], cell.correct[rows], resamples.image[rows]
        recalibrated = cross_fitted(*rows_of, resamples.folds, bins)
        own = {
            key: np.isin(rows, part)
            for key, part in parts.items()
            if key not in WHOLE and not key.startswith(OUTCOME)
        }
        sample = Sample(
            *rows_of,
            weights=resamples.weights,
            bins=bins,
            columns={key: column[rows] for key, column in columns.items()}
            | brier_after(cell.correct[rows], recalibrated),
            groups=groups,
            subsets=own if name == POOLED else {},
            folds=resamples.folds,
            splits=None
            if slope is None
            else Splits(cell.table[rows], slope[:, rows], resamples.halves, reference.get(name)),
            recalibrated=recalibrated,
            signs=resamples.signs,
        )
        few = replace(sample, weights=resamples.few)
        metrics = compute_all(sample, few, primary=name == POOLED)
        for readout, reading in read.items() if name == POOLED else ():
            confidence, correct = (values[rows] for values in reading)
            other = replace(sample, confidence=confidence, correct=correct, splits=None)
            metrics |= compute_read(other, readout)
        results.append(metrics)
    return results


def brier_after(correct: NDArray, recalibrated: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """Return the squared errors of rows after each recalibration, means over splits, float64 [n].

    Args:
        correct: bool [n].
        recalibrated: from `maps.cross_fitted`.
    """
    return {
        f"brier_{name}": ((table - correct) ** 2).mean(axis=0)
        for name, table in recalibrated.items()
    }


def bins_in_use(cells: list[Cell], parts: Mapping[str, NDArray], bins: int) -> dict[str, NDArray]:
    """Return how each cell and subset fills the bins of confidence, [cells, subsets] by column."""
    use = np.array(
        [[bin_use(cell.confidence[rows], bins) for rows in parts.values()] for cell in cells]
    )
    return {"bins_filled": use[..., 0].astype(np.int64), "largest_bin_share": use[..., 1].copy()}


def _slopes(cell: Cell) -> NDArray | None:
    """Return the rows' `slopes`, float64 [grid, n]; None of a cell without logits.

    Flat, so that no temperature is the best, if the right option of a question has no score: its
    likelihood is 0 at every temperature.
    """
    if cell.stated is not None:
        return None
    slope = slopes(cell.table, cell.label)
    return slope if np.isfinite(slope).all() else np.zeros_like(slope)


def cell_temperatures(
    cell: Cell, parts: Mapping[str, NDArray], resamples: Resamples
) -> dict[str, NDArray]:
    """Return a cell's temperatures per subset, float64 [splits, 2, 1 + r], see `Sample`.

    None of a cell without logits.
    """
    slope = _slopes(cell)
    if slope is None:
        return {}
    return {
        name: temperatures(slope[:, rows], resamples.image[rows], resamples.halves)
        for name, rows in parts.items()
    }


def score_cells(
    cells: list[Cell], parts: Mapping[str, NDArray], resamples: Resamples, bins: int, processes: int
) -> list[list[dict[str, NDArray]]]:
    """Return every metric of each cell per subset, see `score_cell`; `processes` at a time.

    The cells are of one model on one data set.
    """
    unpruned = [cell for cell in cells if cell.facts["family"] == REFERENCE]
    with threadpool_limits(1):
        reference = cell_temperatures(unpruned[0], parts, resamples) if unpruned else {}
    work = _Work(cells, parts, resamples, reference, bins)
    with ExitStack() as stack:
        scored: Iterable[list[dict[str, NDArray]]]
        if processes == 1:
            scored = map(work, range(len(cells)))
        else:
            # processes: half of the work is small steps that hold Python's global lock
            pool = ProcessPoolExecutor(
                processes, get_context("spawn"), initializer=_take, initargs=(work,)
            )
            scored = stack.enter_context(pool).map(_score_taken, range(len(cells)))
        return list(cli.progress(scored, total=len(cells), what="score", unit="cell"))


@dataclass(frozen=True)
class _Work:
    """What a process needs to score a cell by its index."""

    cells: list[Cell]
    parts: Mapping[str, NDArray]
    resamples: Resamples
    reference: Mapping[str, NDArray]
    bins: int

    def __call__(self, index: int) -> list[dict[str, NDArray]]:
        # one BLAS thread: cells are the unit of work, and rounding must not follow the core count
        with threadpool_limits(1):
            cell = self.cells[index]
            return score_cell(cell, self.parts, self.resamples, self.reference, self.bins)


_taken: _Work  # of a worker process: sent once, not with every cell


def _take(work: _Work) -> None:
    global _taken
    _taken = work
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when its parent is gone: killed, it could not say that no work is left."""
    if parent := parent_process():
        wait([parent.sentinel])
        os._exit(1)


def _score_taken(index: int) -> list[dict[str, NDArray]]:
    return _taken(index)
