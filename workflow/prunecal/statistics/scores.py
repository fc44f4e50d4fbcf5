"""Score files as later stages read them: values and draws by cell, subset and metric."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunecal.core.errors import RERUN, PrunecalError
from prunecal.statistics.predictions import tokens_kept
from prunecal.statistics.subsets import POOLED
from prunecal.storage.arrays import open_arrays, write_arrays

REFERENCE = "full"
BIN_USE = ("bins_filled", "largest_bin_share")


class Scores:
    """One model on one data set, as `prunecal.score` wrote it.

    Attributes:
        facts: model, dataset, cells, subsets, metrics, resamples, bins, seed.
        cells: strategy, family, parameters, budget, visual_tokens, tokens_per_layer per cell, but
            not of answers without an image (budget 0) unless they are asked for; the budget in
            tokens, `setting` as the study gives it, and `share` where images differ.
        subsets: name, n, n_images per subset.
    """

    def __init__(self, path: Path | str, *, blind: bool = False):
        self.path = path
        self._file = open_arrays(path)
        self.facts: dict[str, Any] = self._file.facts
        if not {"model", "dataset", "cells", "subsets", "metrics"} <= set(self.facts):
            raise PrunecalError(f"{path} is not a score file; {RERUN}")
        cells = self.facts["cells"]
        self._rows = [at for at, cell in enumerate(cells) if blind or cell["budget"] != 0]
        self.cells: list[dict[str, Any]] = [
            cells[at] | {"budget": tokens_kept(cells[at]), "setting": cells[at]["budget"]}
            for at in self._rows
        ]
        self.subsets: list[dict[str, Any]] = self.facts["subsets"]
        drawn = {name: self._drawn(name) for name in self.facts["metrics"]}
        if self.subset(POOLED) is None or drawn != self.facts.get("resamples", drawn):
            raise PrunecalError(f"{path} lacks metrics that it lists; {RERUN}")

    def value(self, metric: str) -> NDArray:
        """Return a metric on the rows as they are, float64 [cells, subsets]."""
        return self._file.get_tensor(f"value/{metric}")[self._rows]

    def draws(self, metric: str) -> NDArray:
        """Return a metric on each resample, float64 [cells, subsets, R]."""
        return self._file.get_tensor(f"draws/{metric}")[self._rows].astype(np.float64)

    def bin_use(self) -> dict[str, NDArray]:
        """Return how each cell and subset fills the bins of confidence, [cells, subsets] each."""
        return {name: self._file.get_tensor(name)[self._rows] for name in BIN_USE}

    def _drawn(self, metric: str) -> int:
        """Return the number of resamples of a metric."""
        self._file.get_slice(f"value/{metric}")
        return self._file.get_slice(f"draws/{metric}").get_shape()[-1]

    @property
    def task(self) -> dict[str, str]:
        """The names of the model and of the data set."""
        return {key: self.facts[key] for key in ("model", "dataset")}

    def subset(self, name: str) -> int | None:
        """Return a subset's index, None if the data set has none of that name."""
        return next((i for i, subset in enumerate(self.subsets) if subset["name"] == name), None)

    @property
    def pooled(self) -> int:
        """Index of the subset that holds all questions."""
        return [subset["name"] for subset in self.subsets].index(POOLED)

    @cached_property
    def reference(self) -> int:
        """Index of the unpruned model.

        Raises:
            PrunecalError: there is none.
        """
        for index, cell in enumerate(self.cells):
            if cell["family"] == REFERENCE:
                return index
        raise PrunecalError(
            f"{self.path} has no cell of strategy {REFERENCE!r}, with which all others are "
            "compared; add it to the study's strategies"
        )


def write_scores(
    path: Path,
    results: list[list[dict[str, NDArray]]],
    use: dict[str, NDArray],
    cells: list[dict[str, Any]],
    facts: dict[str, Any],
    sources: list[Path],
) -> None:
    """Write the metrics of all cells of one model on one data set.

    Args:
        path: safetensors file to write.
        results: per cell and subset every metric: the value, then the replicates.
        use: the arrays of `BIN_USE`.
        cells: the cells' metadata, model and data set included.
        facts: subsets, bins and seed.
        sources: the files that the metrics were computed from.
    """
    every = [subset for cell in results for subset in cell]
    shapes = {key: values.shape for subset in every for key, values in subset.items()}
    metrics = sorted(shapes)
    arrays = dict(use)
    for metric in metrics:
        missing = np.full(shapes[metric], np.nan)  # in subsets, in cells of another program
        table = np.stack([[subset.get(metric, missing) for subset in cell] for cell in results])
        arrays[f"value/{metric}"] = np.ascontiguousarray(table[..., 0])
        arrays[f"draws/{metric}"] = table[..., 1:].astype(np.float32)
    model_and_dataset = {key: cells[0][key] for key in ("model", "dataset")}
    metadata = {
        **model_and_dataset,
        "cells": [
            {key: value for key, value in cell.items() if key not in model_and_dataset}
            for cell in cells
        ],
        "metrics": metrics,
        "resamples": {metric: arrays[f"draws/{metric}"].shape[-1] for metric in metrics},
        **facts,
    }
    write_arrays(path, arrays, metadata, sources)


def read_scores(paths: list[Path], *, blind: bool = False) -> list[Scores]:
    """Read the score files of a study, in order of model and data set; `blind` as in `Scores`.

    Raises:
        PrunecalError: a file is bad, or two hold the same model and data set.
    """
    files_read = [Scores(path, blind=blind) for path in paths]
    studied = sorted(files_read, key=lambda scores: tuple(scores.task.values()))
    for before, after in zip(studied[:-1], studied[1:], strict=True):
        if before.task == after.task:
            raise PrunecalError(
                f"{before.path} and {after.path} hold the same model and data set; remove one"
            )
    return studied
