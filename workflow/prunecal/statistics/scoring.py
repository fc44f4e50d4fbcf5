"""Metrics of a cell, as it is and on resampled images."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prunecal.calibration.crossfit import cross_fitted_ece, slopes, temperatures
from prunecal.calibration.weighted import (
    Sample,
    equal_mass_metrics,
    mean_metrics,
    ranked_metrics,
    smooth_metrics,
)
from prunecal.statistics.predictions import Cell


@dataclass(frozen=True)
class Resamples:
    """The draws that all cells share.

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
    """Return every metric of a cell per subset: the value, then the draws, float64 [1 + r].

    Args:
        cell: the predictions.
        parts: row indices of each subset.
        resamples: the shared draws.
        reference: per subset the temperatures of the unpruned model, see `cell_temperatures`;
            empty where there is no unpruned model.
        bins: number of calibration bins.
    """
    means = cell.row_means()
    slope = slopes(cell.table, cell.label)
    found = []
    for name, rows in parts.items():
        image = resamples.image[rows]
        groups = {}
        if cell.yes is not None:
            groups = {"ece_yes": cell.yes[rows], "ece_no": ~cell.yes[rows]}
        sample = Sample(
            confidence=cell.confidence[rows],
            correct=cell.correct[rows],
            cluster=image,
            means={key: column[rows] for key, column in means.items()},
            groups=groups,
        )
        metrics = mean_metrics(sample, resamples.weights, bins)
        metrics |= ranked_metrics(sample, resamples.weights)
        metrics |= equal_mass_metrics(sample, resamples.weights, bins)
        few, fold = resamples.few, resamples.fold
        metrics |= smooth_metrics(sample, few)
        own = temperatures(slope[:, rows], image, fold, few)
        scaled = cell.table[rows], sample.correct, image, fold
        metrics["temperature"] = np.exp(np.log(own).mean(axis=0))
        metrics["ece_temperature"] = cross_fitted_ece(*scaled, own, few, bins)
        if reference:
            metrics["ece_temperature_transfer"] = cross_fitted_ece(
                *scaled, reference[name], few, bins
            )
        found.append(metrics)
    return found


def cell_temperatures(
    cell: Cell, parts: Mapping[str, NDArray], resamples: Resamples
) -> dict[str, NDArray]:
    """Return a cell's temperatures per subset, float64 [2, 1 + r]: of each fold and draw."""
    slope = slopes(cell.table, cell.label)
    return {
        name: temperatures(slope[:, rows], resamples.image[rows], resamples.fold, resamples.few)
        for name, rows in parts.items()
    }
