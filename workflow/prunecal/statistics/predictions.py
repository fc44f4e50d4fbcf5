"""Predictions as the statistics read them: one checked cell, and the rows that all cells share."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prunecal.calibration.logits import brier_rows, log_probabilities, surprise_rows
from prunecal.core.errors import RERUN, PrunecalError
from prunecal.statistics import readouts
from prunecal.statistics.readouts import OPTIONAL, Recorded, lengths, padded, recorded_in
from prunecal.storage import files
from prunecal.storage.schemas import STATED
from prunecal.study.budgets import ALL, NOMINAL, kept_tokens

if TYPE_CHECKING:
    import pyarrow as pa

ROW_COLUMNS = ("question_id", "image_id", "subset", "options", "label")
COLUMNS = [*ROW_COLUMNS, "logits", "n_visual", "coverage"]
LARGEST_LOGIT = 1e30  # differences of larger ones overflow the float32 of a score file
IMPORTED = "imported"  # in the metadata of a cell that was imported: what is known of its scores
STATED_COLUMNS = ["prediction", "confidence"]
ANSWER = "answer"  # the column of short answers


@dataclass(frozen=True)
class Cell:
    """One strategy at one budget, its predictions in the data set's order.

    Attributes:
        facts: strategy, family, parameters, budget, model, dataset, visual_tokens,
            tokens_per_layer.
        rows: question_id, image_id, subset, options and label of each question.
        table: option logits, float64 [n, K], -inf where a question has fewer options or, in an
            imported cell, an option had no score; of stated confidences, -inf throughout.
        n_visual: visual tokens kept, float64 [n].
        coverage: evidence coverage of the kept set, float64 [n].
        recorded: what tells of other readings of confidence.
        stated: prediction int [n] and confidence float64 [n] of a cell without logits: an imported
            one whose confidence the model put into words or samples agreed on, or one of short
            answers, whose confidence is the probability of the whole answer; else None.
        texts: short answers [n]; None where answers are options.
    """

    facts: dict[str, Any]
    rows: dict[str, list[Any]]
    table: NDArray
    n_visual: NDArray
    coverage: NDArray
    recorded: Recorded = Recorded()
    stated: tuple[NDArray, NDArray] | None = None
    texts: list[str] | None = None

    @cached_property
    def label(self) -> NDArray:
        """Index of the right option, int [n]."""
        return np.asarray(self.rows["label"], dtype=np.int64)

    @cached_property
    def prediction(self) -> NDArray:
        """Index of the largest logit, the lowest one of a tie, int [n]."""
        if self.stated is not None:
            return self.stated[0]
        return self.table.argmax(axis=1)

    @cached_property
    def correct(self) -> NDArray:
        """Whether the prediction is the label, bool [n]."""
        return self.prediction == self.label

    @cached_property
    def log_probability(self) -> NDArray:
        """Log-softmax over the question's options, float64 [n, K]."""
        return log_probabilities(self.table)

    @cached_property
    def confidence(self) -> NDArray:
        """Probability of the prediction, float64 [n]."""
        if self.stated is not None:
            return self.stated[1]
        # not exp(log p): three equal logits must give 1/3 exactly, which is an edge of a bin
        return 1 / np.exp(self.table - self.table.max(axis=1, keepdims=True)).sum(axis=1)

    @cached_property
    def yes(self) -> NDArray | None:
        """Whether the prediction is "Yes", bool [n]; None unless all questions are Yes or No."""
        rows = [tuple(options) for options in self.rows["options"]]
        place = {}
        for options in set(rows):  # few: one is looked at once, not with every question
            lower = [option.lower() for option in options]
            if sorted(lower) != ["no", "yes"]:
                return None
            place[options] = lower.index("yes")
        return self.prediction == np.array([place[options] for options in rows])

    def row_means(self) -> dict[str, NDArray]:
        """Return the columns of which means are reported, beside those of every sample."""
        columns = {"evidence_coverage": self.coverage, "n_visual": self.n_visual}
        if self.stated is None:
            columns = self._means_of_logits() | columns
        if self.facts["tokens_per_layer"] is not None:
            columns["tokens_per_layer"] = np.full(len(self.table), self.facts["tokens_per_layer"])
        if self.yes is not None:
            columns["yes_rate"] = self.yes.astype(np.float64)
        return columns | readouts.row_means(self)

    def _means_of_logits(self) -> dict[str, NDArray]:
        """Return the columns that need every option's probability; NaN where one is infinite."""
        probability = np.exp(self.log_probability)
        ordered = -np.sort(-self.table, axis=1)[:, :2]
        log_probability = np.where(probability > 0, self.log_probability, 0.0)
        columns = {
            "brier_multiclass": brier_rows(self.table, self.label),
            "nll": surprise_rows(self.table, self.label),
            "margin": ordered[:, 0] - ordered[:, -1],
            "entropy": -(probability * log_probability).sum(axis=1),
        }
        return {
            key: np.where(np.isfinite(column), column, np.nan) for key, column in columns.items()
        }


def read_cell(path: Path | str) -> Cell:
    """Read a cell's predictions.parquet.

    Raises:
        PrunecalError: the file is missing or damaged, or a question has no options, a label outside
            its options, another number of logits than options, or NaN or infinite logits.
    """
    columns = _checked_columns(path)
    return _cell(path, columns, columns.select(ROW_COLUMNS).to_pydict())


def _origin(path: Path | str) -> dict[str, Any] | None:
    """Return what an imported cell says of its scores, None of a cell that was inferred here."""
    return files.read_facts(path).get(IMPORTED)


def _checked_columns(path: Path | str) -> "pa.Table":
    """Read the columns of a cell, without a Python object per value: cells have many rows."""
    import pyarrow.compute as pc

    origin = _origin(path)
    stated = (files.read_facts(path) if origin is None else origin).get(STATED) is not None
    more = STATED_COLUMNS if stated else []
    columns = files.read_table(path, [*COLUMNS, *more], [*OPTIONAL, ANSWER]).combine_chunks()
    names = columns["question_id"]
    if not len(names):
        raise PrunecalError(f"{path} has no questions; {RERUN}")
    if pc.count_distinct(names).as_py() < len(names):
        raise PrunecalError(f"{path} contains a question id twice; {RERUN}")
    options, logits = (lengths(columns[name]) for name in ("options", "logits"))
    label = columns["label"].to_numpy()
    values = pc.list_flatten(columns["logits"]).to_numpy()
    finite = np.abs(values) < LARGEST_LOGIT
    if origin is not None:
        finite |= values == -np.inf  # an option without a score
    row_of_logit = np.repeat(np.arange(len(names)), logits)
    infinite = np.bincount(row_of_logit[~finite], minlength=len(names)) > 0
    if stated:
        logits = np.where(logits == 0, options, logits)
    faults = (
        (
            (options == 0) | (logits != options),
            "has {logits} logits for {options} options; delete the file and run snakemake again",
        ),
        (
            ~((label >= 0) & (label < options)),
            "has label {label} but {options} options; correct the data set",
        ),
        (
            infinite,
            "has NaN or infinite logits; delete the file and run snakemake again, with dtype: "
            "float32 if the model ran in half precision",
        ),
    )
    for rows, what in faults:
        if rows.any():
            row = int(np.argmax(rows))
            what = what.format(logits=logits[row], options=options[row], label=label[row])
            raise PrunecalError(f"{path}: question {names[row].as_py()!r} {what}")
    return columns


def _cell(path: Path | str, columns: "pa.Table", rows: dict[str, list[Any]]) -> Cell:
    facts = files.read_facts(path)
    cell = facts["cell"]
    table = padded(columns["logits"])
    stated = None
    if set(STATED_COLUMNS) <= set(columns.column_names):
        prediction, confidence = (columns[name].to_numpy() for name in STATED_COLUMNS)
        stated = prediction.astype(np.int64), confidence.astype(np.float64)
    return Cell(
        facts={
            **{key: cell[key] for key in ("model", "dataset", "strategy", "family", "budget")},
            "parameters": cell["parameters"],
            "visual_tokens": facts.get("visual_tokens"),
            "tokens_per_layer": facts.get("tokens_per_layer"),
            **{key: facts[key] for key in (NOMINAL,) if key in facts},
        },
        rows=rows,
        table=table,
        n_visual=columns["n_visual"].to_numpy().astype(np.float64),
        coverage=columns["coverage"].to_numpy().astype(np.float64),
        recorded=recorded_in(path, columns, facts, table),
        stated=stated,
        texts=columns[ANSWER].to_pylist() if ANSWER in columns.column_names else None,
    )


def read_cells(paths: list[Path]) -> list[Cell]:
    """Read all cells of one model on one data set, in order of strategy and budget.

    The cells share the lists of their `rows`.

    Raises:
        PrunecalError: a file is bad (see `read_cell`), two files hold the same cell, or cells
            differ in model, data set or questions.
    """
    cells: list[tuple[Cell, Path]] = []
    for path in paths:
        columns = _checked_columns(path)
        if not cells:
            shared, rows = columns, columns.select(ROW_COLUMNS).to_pydict()
        cells.append((_cell(path, columns, rows), path))
        first = cells[0][0]
        for key in ("model", "dataset"):
            if cells[-1][0].facts[key] != first.facts[key]:
                raise PrunecalError(
                    f"{path} is of {key} {cells[-1][0].facts[key]!r} but {paths[0]} of "
                    f"{first.facts[key]!r}; score them apart"
                )
        if (cells[-1][0].stated is None) != (first.stated is None):
            raise PrunecalError(
                f"{path} and {paths[0]} hold confidences of two kinds, from logits and stated "
                "ones, which do not compare; give them different models"
            )
        for name in ROW_COLUMNS:
            if not columns[name].equals(shared[name]):
                raise PrunecalError(
                    f"{path} and {paths[0]} differ in their {name} column; delete both and run "
                    "snakemake again"
                )
    _add_shares([cell for cell, _ in cells])
    cells.sort(key=lambda pair: (pair[0].facts["strategy"], tokens_kept(pair[0].facts)))
    for (cell, path), (before, before_path) in pairwise(cells):
        if cell.facts["strategy"] == before.facts["strategy"] and tokens_kept(
            cell.facts
        ) == tokens_kept(before.facts):
            same = cell.facts["budget"] == before.facts["budget"]
            fault = "hold the same cell" if same else "keep the same mean number of tokens"
            raise PrunecalError(f"{before_path} and {path} {fault}; remove one of them")
    return [cell for cell, _ in cells]


def tokens_kept(cell: dict[str, Any]) -> int:
    """Return a cell's budget in visual tokens: of images that differ, the rounded mean."""
    return cell.get("tokens", cell["budget"])


def budget_in_tokens(path: Path | str, *, ragged: bool = False) -> int:
    """Return a cell's budget in visual tokens: of a share, the mean over images, rounded.

    Args:
        path: its predictions.
        ragged: whether a number is one that images with fewer tokens do not reach; the mean, too.
    """
    facts = files.read_facts(path)
    if NOMINAL in facts:
        return facts[NOMINAL]
    budget = facts["cell"]["budget"]
    if ragged or isinstance(budget, str):
        kept = files.read_table(path, ["image_id", "n_visual"])
        rows = _first_rows(kept["image_id"].to_pylist())
        budget = round(float(kept["n_visual"].to_numpy()[rows].mean()))
    return budget


def _first_rows(image_ids: list[str]) -> list[int]:
    """Return a row of each image."""
    return list({image: row for row, image in reversed(list(enumerate(image_ids)))}.values())


def _add_shares(cells: list[Cell]) -> None:
    """Add to the facts of cells whose images have different numbers of tokens what these come to.

    `tokens`, the mean kept over the data set's images, rounded, and `share`, the mean share of an
    image's tokens; the latter only if there is an unpruned cell.
    """
    if all(isinstance(cell.facts["budget"], int) for cell in cells):
        return
    whole = next((cell for cell in cells if cell.facts["budget"] == ALL), None)
    rows = _first_rows(cells[0].rows["image_id"])
    for cell in cells:
        kept, nominal = cell.n_visual[rows], cell.facts.pop(NOMINAL, None)
        if nominal is not None and whole is not None:
            budget = cell.facts["budget"]
            kept = np.array([kept_tokens(budget, int(n)) for n in whole.n_visual[rows]])
        cell.facts["tokens"] = nominal or round(float(kept.mean()))
        if whole is not None:
            cell.facts["share"] = float((kept / whole.n_visual[rows]).mean())
