"""A finished study's results as pandas frames, for notebooks: see `prunecal.load`."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from prunecal.core.errors import PrunecalError, brief, nearest
from prunecal.statistics.predictions import mean_kept, read_cell
from prunecal.storage import files

if TYPE_CHECKING:
    from collections.abc import Callable

PREDICTIONS = "predictions.parquet"
CELL = ("model", "dataset", "strategy", "family", "budget")
MEASURED = (
    "subset", "metric", "value", "ci_low", "ci_high", "n", "n_images", "bins_filled",
    "largest_bin_share",
)  # fmt: skip


class Results:
    """The results of one study. Each file is read, and its checksum compared, when asked for.

    Args:
        folder: the study's tables: `results`, or `results/<study>` of a named study.

    Raises:
        PrunecalError: the folder holds no study.
    """

    def __init__(self, folder: Path | str = "results") -> None:
        self.folder = Path(folder)
        settings = self.folder / "study.json"
        if not settings.is_file():
            raise PrunecalError(_no_study(self.folder))
        named = files.read_object(settings).get("study")
        self._cells_folder = self.folder.parent if named else self.folder
        self._run = "snakemake --cores all" + (" --configfile SETTINGS.yaml" if named else "")

    def __repr__(self) -> str:
        return f"prunecal.load({str(self.folder)!r})"

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Every metric with its interval: a row per cell, subset and metric."""
        return self._frame("metrics.parquet")

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """Every metric's difference from the unpruned model, with interval and p-values."""
        return self._frame("comparisons.parquet")

    @cached_property
    def claims(self) -> pd.DataFrame:
        """A row per claim: id, statement, verdict, and evidence, a list of sentences."""
        claims = self._read("claims.json", files.read_json)
        rows = [claim | {"evidence": claim["evidence"]["words"]} for claim in claims]
        return pd.DataFrame(rows, columns=["id", "statement", "verdict", "evidence"])

    @cached_property
    def cells(self) -> pd.DataFrame:
        """A row per cell: model, data set, strategy, parameters, budget, and its predictions."""
        cells = self.metrics.drop(columns=[*MEASURED]).drop_duplicates(ignore_index=True)
        return cells.assign(
            predictions=[
                str(self._predictions(*row))
                for row in zip(
                    *(cells[key] for key in ("model", "dataset", "strategy", "budget")), strict=True
                )
            ]
        )

    def predictions(self, model: str, dataset: str, strategy: str, budget: int) -> pd.DataFrame:
        """Return a cell's predictions: a row per question.

        The columns of predictions.parquet, and prediction (index of the chosen option), confidence
        and correct as the metrics use them.

        Args:
            model: the model's name in the study.
            dataset: the data set's name in the study.
            strategy: the strategy's label, for example "scope-alpha0".
            budget: visual tokens kept.

        Raises:
            PrunecalError: the study has no such cell, or its file is missing or damaged.
        """
        cells = self.cells
        given = {"model": model, "dataset": dataset, "strategy": strategy, "budget": budget}
        for key, value in given.items():
            known = cells[key].unique().tolist()
            if value not in known:
                close = nearest(value, known) if isinstance(value, str) else ""
                raise PrunecalError(
                    f"{self.folder} has no cell of {key} {brief(value)}{close}; known are "
                    f"{', '.join(map(str, known))}"
                )
            cells = cells[cells[key] == value]
        path = self._predictions(model, dataset, strategy, budget)
        frame = self._read(path, files.read_table).to_pandas()
        cell = read_cell(path)
        return frame.assign(
            prediction=cell.prediction, confidence=cell.confidence, correct=cell.correct
        )

    def _predictions(self, model: str, dataset: str, strategy: str, budget: int) -> Path:
        """Return a cell's file; a share's folder is told by the mean number of tokens it keeps."""
        strategies = self._cells_folder / model / dataset / strategy
        path = strategies / str(budget) / PREDICTIONS
        if not path.is_file():
            for other in sorted(strategies.glob(f"*/{PREDICTIONS}")):
                if not other.parent.name.isdigit():
                    kept = files.read_table(other, ["image_id", "n_visual"])
                    images = kept["image_id"].to_pylist()
                    if mean_kept(kept["n_visual"].to_numpy(), images) == budget:
                        return other
        return path

    def _frame(self, name: str) -> pd.DataFrame:
        return self._read(name, files.read_table).to_pandas()

    def _read(self, name: Path | str, read: Callable[[Path], Any]) -> Any:
        """Read a file of the study after comparing it with its recorded checksum."""
        path = name if isinstance(name, Path) else self.folder / name
        if not path.is_file():
            raise PrunecalError(f"{path} is missing; run `{self._run}` to finish the study")
        if files.recorded(path) is not None and not files.undamaged(path):
            raise PrunecalError(
                f"{path} is not as it was written (its checksum differs); run `snakemake --cores 1 "
                f"repair` and then `{self._run}`"
            )
        return read(path)


def _no_study(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} is not a folder; run `snakemake --cores all`, or name a study's results"
    named = sorted(str(path.parent) for path in folder.glob("*/study.json"))
    if named:
        return f"{folder} holds no study of its own but {', '.join(named)}; load one of these"
    return f"{folder} holds no study (study.json is missing); run `snakemake --cores all`"
