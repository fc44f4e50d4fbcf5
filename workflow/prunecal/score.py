"""Measure all cells of one model on one data set, as they are and on resampled images.

Output: safetensors. `value/<metric>` float64 [cells, subsets], and `draws/<metric>` float32
[cells, subsets, R], the metric on each resample of images, the same resamples in all cells; NaN
where it is undefined. Metadata: model, dataset, cells, subsets, metrics, resamples, bins, seed.
"""

import argparse
import os
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from prunecal.core import cli
from prunecal.statistics.bootstrap import image_folds, image_weights
from prunecal.statistics.predictions import Cell, read_cells, subsets
from prunecal.statistics.scores import REFERENCE
from prunecal.statistics.scoring import Resamples, cell_temperatures, score_cell
from prunecal.storage import files


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
    wait([parent_process().sentinel])
    os._exit(1)


def _score_taken(index: int) -> list[dict[str, NDArray]]:
    return _taken(index)


def main(arguments: argparse.Namespace) -> None:
    """Score the cells and write the file."""
    cells = read_cells(arguments.predictions)
    parts = subsets(cells[0].rows, arguments.questions)
    images, image = np.unique(np.array(cells[0].rows["image_id"]), return_inverse=True)
    drawn = image_weights(len(images), arguments.resamples, arguments.seed)
    weights = np.hstack([np.ones((len(images), 1)), drawn])
    resamples = Resamples(
        image=image,
        weights=weights,
        few=np.ascontiguousarray(weights[:, : 1 + arguments.costly_resamples]),
        fold=image_folds(len(images), arguments.seed),
    )
    unpruned = [cell for cell in cells if cell.facts["family"] == REFERENCE]
    with threadpool_limits(1):
        reference = cell_temperatures(unpruned[0], parts, resamples) if unpruned else {}

    work = _Work(cells, parts, resamples, reference, arguments.bins)
    with ExitStack() as stack:
        scored: Iterable[list[dict[str, NDArray]]]
        if arguments.threads == 1:
            scored = map(work, range(len(cells)))
        else:
            # processes: half of the work is small steps that hold Python's global lock
            pool = ProcessPoolExecutor(
                arguments.threads, get_context("spawn"), initializer=_take, initargs=(work,)
            )
            scored = stack.enter_context(pool).map(_score_taken, range(len(cells)))
        results = list(cli.progress(scored, total=len(cells), what="score", unit="cell"))
    metrics = sorted(results[0][0])
    arrays = {}
    for metric in metrics:
        table = np.stack([[subset[metric] for subset in cell] for cell in results])
        arrays[f"value/{metric}"] = np.ascontiguousarray(table[..., 0])
        arrays[f"draws/{metric}"] = table[..., 1:].astype(np.float32)
    facts = {
        "model": cells[0].facts["model"],
        "dataset": cells[0].facts["dataset"],
        "cells": [
            {key: value for key, value in cell.facts.items() if key not in ("model", "dataset")}
            for cell in cells
        ],
        "subsets": [
            {"name": name, "n": len(rows), "n_images": len(np.unique(image[rows]))}
            for name, rows in parts.items()
        ],
        "metrics": metrics,
        "resamples": {metric: arrays[f"draws/{metric}"].shape[-1] for metric in metrics},
        "bins": arguments.bins,
        "seed": arguments.seed,
    }
    questions = [arguments.questions] if arguments.questions else []
    files.write_arrays(arguments.output, arrays, facts, [*arguments.predictions, *questions])


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the stage's command line."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--predictions",
        type=Path,
        nargs="+",
        required=True,
        help="predictions.parquet of all cells",
    )
    parser.add_argument("--questions", type=Path, help='questions.parquet, for the subset "unique"')
    parser.add_argument("--output", type=Path, required=True, help="score.safetensors")
    parser.add_argument("--resamples", type=int, default=2000, help="resamples of images")
    parser.add_argument(
        "--costly-resamples",
        type=int,
        default=200,
        help="how many of them smECE and temperature scaling use",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the resamples and the folds")
    parser.add_argument("--bins", type=int, default=15, help="bins of confidence")
    parser.add_argument("--threads", type=int, default=1, help="processes, a cell each")
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
