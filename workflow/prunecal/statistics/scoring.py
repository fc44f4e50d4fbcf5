"""Metrics of a cell, as it is and on resampled images."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from numpy.typing import NDArray

from prunecal.calibration.crossfit import TwoFolds, slopes, temperatures
from prunecal.calibration.metrics import compute_all
from prunecal.calibration.sample import Sample
from prunecal.statistics.predictions import Cell


@dataclass(frozen=True)
class Resamples:
    """The resamples of images that all cells share.

    Attributes:
        image: int [n], index of each row's image.
        weights: float64 [images, 1 + R]: ones, then how often each resample holds each image.
        few: columns of `weights` used for the costly metrics.
        fold: int [images], the half of the images on which a temperature is fitted.
    """

    image: NDArray
    weights: NDArray
    few: NDArray
    fold: NDArray


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
    slope = slopes(cell.table, cell.label)
    results = []
    for name, rows in parts.items():
        groups = {} if cell.yes is None else {"yes": cell.yes[rows], "no": ~cell.yes[rows]}
        sample = Sample(
            confidence=cell.confidence[rows],
            correct=cell.correct[rows],
            cluster=resamples.image[rows],
            weights=resamples.weights,
            bins=bins,
            columns={key: column[rows] for key, column in columns.items()},
            groups=groups,
            folds=TwoFolds(cell.table[rows], slope[:, rows], resamples.fold, reference.get(name)),
        )
        results.append(compute_all(sample, replace(sample, weights=resamples.few)))
    return results


def cell_temperatures(
    cell: Cell, parts: Mapping[str, NDArray], resamples: Resamples
) -> dict[str, NDArray]:
    """Return a cell's temperatures per subset, float64 [2, 1 + r]: of each fold and replicate."""
    slope = slopes(cell.table, cell.label)
    return {
        name: temperatures(slope[:, rows], resamples.image[rows], resamples.fold, resamples.few)
        for name, rows in parts.items()
    }
