"""A finished study's results as pandas frames, for notebooks: see `prunecal.load`."""

from __future__ import annotations

import json
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from prunecal.core.errors import PrunecalError, brief, nearest
from prunecal.statistics.predictions import budget_in_tokens, read_cell
from prunecal.storage import files
from prunecal.study import budgets
from prunecal.study.cells import load_study
from prunecal.study.design import Design

if TYPE_CHECKING:
    from collections.abc import Callable

PREDICTIONS = "predictions.parquet"
CELLS = f"*/*/*/*/{PREDICTIONS}"
EXPORTED = (".parquet", ".jsonl", ".csv")
LISTS = ("options", "logits", "spelling_logits", "letter_logits")  # JSON text where need be
OF_OPTIONS = ("option_tokens", "option_spellings")  # of the metadata, as JSON text
ANSWERED = (
    "question_id", "image_id", "subset", "options", "label", "logits", "answer", "prediction",
    "confidence", "log_normaliser", "top_token", "spelling_logits", "letter_logits", "n_visual",
    "coverage",
)  # fmt: skip
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
                close = "" if key == "budget" else nearest(str(value), known)
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

    def export(self, path: Path | str) -> None:
        """Write all cells' answers to one file: a row per cell and question.

        The file holds what `python -m prunecal.imports` needs to make a study of it that gives the
        same metrics, comparisons and claims; other programs can read it too.

        Args:
            path: a file that ends in .parquet, .jsonl or .csv; lists and objects are JSON in CSV.

        Raises:
            PrunecalError: the suffix is none of these, or a file is missing or damaged.
        """
        path = Path(path)
        if path.suffix not in EXPORTED:
            raise PrunecalError(f"{path} ends in none of {', '.join(EXPORTED)}; rename it")
        frames = [self._exported(Path(cell)) for cell in self.cells["predictions"]]
        rows = pd.concat(frames, ignore_index=True)
        if any(isinstance(budget, str) for budget in rows["budget"].unique()):
            rows["budget"] = rows["budget"].astype(str)  # shares beside numbers
        if path.suffix == ".parquet":
            rows.to_parquet(path, index=False)
            return
        for name in LISTS:
            if name in rows:
                rows[name] = [
                    None if value is None else json.dumps(value.tolist()) for value in rows[name]
                ]
        if path.suffix == ".csv":
            rows.to_csv(path, index=False)
            return
        with path.open("w", encoding="utf-8") as file:
            for row in rows.to_dict("records"):
                given = {name: value for name, value in row.items() if value == value}
                file.write(json.dumps(given, ensure_ascii=False) + "\n")

    def _exported(self, path: Path) -> pd.DataFrame:
        """Return the rows of one cell, with the columns that describe it."""
        facts = files.read_facts(path)
        described = facts["cell"]
        frame = self._read(path, files.read_table).to_pandas()
        questions = self._cells_folder / "datasets" / described["dataset"] / "questions.parquet"
        asked = self._read(questions, files.read_table).to_pandas().set_index("question_id")
        kept = [name for name in ANSWERED if name in frame and not frame[name].isna().all()]
        return frame[kept].assign(
            text=asked["text"].reindex(frame["question_id"]).to_numpy(),
            model=described["model"],
            dataset=described["dataset"],
            strategy=described["strategy"],
            family=described["family"],
            parameters=json.dumps(described["parameters"], sort_keys=True),
            budget=described["budget"],
            visual_tokens=facts.get("visual_tokens"),
            tokens_per_layer=facts.get("tokens_per_layer"),
            **{name: json.dumps(facts[name]) for name in OF_OPTIONS if name in facts},
        )

    def _predictions(self, model: str, dataset: str, strategy: str, budget: int) -> Path:
        """Return a cell's file."""
        path = self._cells_folder / model / dataset / strategy / str(budget) / PREDICTIONS
        return self._ragged.get((model, dataset, strategy, budget), path)

    @cached_property
    def _ragged(self) -> dict[tuple[str, str, str, int], Path]:
        """The files of models whose images have different numbers of tokens.

        By model, data set, strategy and the budget in tables, the mean number of kept tokens.
        """
        paths: dict[tuple[str, str, str, int], Path] = {}
        if all(path.parent.name.isdigit() for path in self._cells_folder.glob(CELLS)):
            return paths
        settings = self._read("study.json", files.read_object)
        for (model, dataset), cells in Design(load_study(settings)).pair_cells.items():
            if all(isinstance(cell.budget, int) for cell in cells):
                continue
            for cell in cells:
                strategy = self._cells_folder / model / dataset / cell.strategy
                path = strategy / budgets.folder(cell.budget) / PREDICTIONS
                tokens = self._read(path, partial(budget_in_tokens, ragged=True))
                paths[model, dataset, cell.strategy, tokens] = path
        return paths

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
