"""Interactions: does pruning, or a strategy's parameter, act differently in two studies?

What is set side by side, A and B: the same data set under two models (or one model in two
precisions), else the same model on two data sets, else, where each study has one model and one data
set, those. Cells agree in strategy and in the share of visual tokens that they keep.

An interaction is effect in A minus effect in B. Effects are a strategy's change from the unpruned
model at each budget, and the slope of a metric over each parameter that both studies sweep. Where
both were asked of the same images (same ids, same bytes) and scored with the same resamples, the
interval pairs them resample by resample; else the resamples are independent and B's are shuffled.
Where A and B are the same weights in two precisions, dtypes or quantizations, the values of every
cell, the unpruned model too, are also set side by side: what precision alone does.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prunecal.core.errors import PrunecalError
from prunecal.statistics.bootstrap import interval
from prunecal.statistics.scores import REFERENCE, Scores, read_scores
from prunecal.statistics.selectors import Measured
from prunecal.statistics.significance import p_values
from prunecal.statistics.tables import Rows
from prunecal.storage import files
from prunecal.storage.schemas import STATED
from prunecal.study.budgets import ALL
from prunecal.study.budgets import share as share_of

PRUNING = "pruning"  # the effect of a strategy at a budget
PRECISION = "precision"  # the values themselves of one model in two precisions
METRICS = ("accuracy", "ece_debiased", "brier", "aurc")
COLUMNS = [
    "a", "b", "metric", "effect", "strategy", "share", "in_a", "in_b", "interaction", "ci_low",
    "ci_high", "p", "p_adjusted", "paired",
]  # fmt: skip
Key = tuple[str, float]  # strategy, share of the visual tokens
Name = Callable[[str, Mapping[str, Any]], str]


def _nominal_share(cell: Mapping[str, Any], whole: int) -> float:
    """Return the share of visual tokens that a cell keeps: where images differ, the study's."""
    setting = cell.get("setting", cell["budget"])
    if setting == ALL:
        return 1.0
    return share_of(setting) if isinstance(setting, str) else cell["budget"] / whole


class Side(NamedTuple):
    """One model on one data set of a study."""

    folder: Path  # of the study's aggregates
    scores: Scores

    @property
    def name(self) -> str:
        """Say which it is."""
        facts = self.scores.facts
        return f"{facts['dataset']}, {facts['model']} ({self.folder.name})"

    @property
    def precision(self) -> tuple[Any, ...]:
        """Dtype of the model and quantization of its weights, as far as the score file knows."""
        facts = self.scores.facts
        return tuple(facts.get(key) for key in ("dtype", "quantization", "group_size"))

    @property
    def kind(self) -> str | None:
        """The kind of confidence; None if it is of option scores."""
        return self.scores.facts.get(STATED)

    @property
    def results(self) -> Path:
        """Folder of data sets and cells, which also contains the aggregates of a named study."""
        named = files.read_object(self.folder / "study.json").get("study")
        return self.folder.parent if named else self.folder

    @property
    def n_images(self) -> int:
        """The number of images that were resampled."""
        return self.scores.subsets[self.scores.pooled]["n_images"]

    def cells(self) -> dict[Key, int]:
        """Return the index of each cell by strategy and share of visual tokens kept."""
        whole = self.scores.cells[self.scores.reference]["budget"]
        return {
            (cell["strategy"], round(_nominal_share(cell, whole), 6)): index
            for index, cell in enumerate(self.scores.cells)
        }

    def table(self, metric: str) -> NDArray:
        """Return the value and then the replicates of each cell, float64 [cells, 1 + R]."""
        return Measured(self.scores, self.scores.pooled).table(metric)

    def images(self) -> dict[str, str]:
        """Return the digest of each image that was asked about, by id."""
        folder = self.results / "datasets" / self.scores.facts["dataset"]
        questions = files.read_table(folder / "questions.parquet", ["image_id"])
        table = files.read_table(folder / "images.parquet", ["image_id", "bytes"])
        used = set(questions.column("image_id").to_pylist())
        columns = (table.column(name).to_pylist() for name in ("image_id", "bytes"))
        return {
            image: hashlib.sha256(content).hexdigest()
            for image, content in zip(*columns, strict=True)
            if image in used
        }


def read_sides(folder: Path) -> list[Side]:
    """Read a study's score files.

    Raises:
        PrunecalError: the folder holds no finished study.
    """
    paths = sorted((folder / "scores").glob("*/*.safetensors"))
    if not paths or not (folder / "study.json").is_file():
        raise PrunecalError(
            f"{folder} holds no finished study (study.json and scores/); give the folder of a "
            "study's results, for example results or results/llava-1.5-7b"
        )
    return [Side(folder, scores) for scores in read_scores(paths)]


def pairs(first: list[Side], second: list[Side]) -> list[tuple[Side, Side]]:
    """Set models and data sets side by side; see the module.

    Raises:
        PrunecalError: the studies have neither a data set nor a model in common.
    """
    every = [(a, b) for a, b in itertools.product(first, second) if a.scores.path != b.scores.path]
    if first and second and first[0].folder == second[0].folder:  # each pair of a study once
        every = [(a, b) for a, b in every if str(a.scores.path) < str(b.scores.path)]
    every = [(a, b) for a, b in every if a.kind == b.kind]
    for key in ("dataset", "model"):
        alike = [(a, b) for a, b in every if a.scores.facts[key] == b.scores.facts[key]]
        if alike:
            return alike
    if len(every) == 1:
        return every
    raise PrunecalError(
        f"{first[0].folder} and {second[0].folder} have neither a model nor a data set in common; "
        "name them alike in both studies, or give studies of one model and data set each"
    )


def is_paired(a: Side, b: Side) -> bool:
    """Tell whether resample r holds the same images in both."""
    return a.scores.facts["seed"] == b.scores.facts["seed"] and a.images() == b.images()


def changes(side: Side, metric: str, keys: list[Key]) -> NDArray:
    """Return the change from the unpruned model of each cell, float64 [cells, 1 + R]."""
    table, index = side.table(metric), side.cells()
    return table[[index[key] for key in keys]] - table[side.scores.reference]


def slopes(
    side: Side, metric: str, keys: list[Key], name_of: Name
) -> dict[tuple[str, str, float], NDArray]:
    """Return slopes over swept parameters by (parameter, strategies' name, share), [1 + R].

    A sweep is two or more of the cells that differ in one number alone (no seed) and keep
    the same share of tokens. The slope is the least-squares one.
    """
    index = side.cells()
    cells = {key: side.scores.cells[index[key]] for key in keys}
    numeric = {
        name
        for cell in cells.values()
        for name, value in cell["parameters"].items()
        if _is_number(value) and name != "seed"
    }
    table, result = side.table(metric), {}
    for name in sorted(numeric):
        groups: dict[tuple[str, str, float], list[Key]] = {}
        for key, cell in cells.items():
            others = {k: v for k, v in cell["parameters"].items() if k != name}
            if _is_number(cell["parameters"].get(name)):
                kind = str(cell["family"]), files.canonical_json(others), key[1]
                groups.setdefault(kind, []).append(key)
        for (family, rest, share), members in groups.items():
            x = np.array([cells[key]["parameters"][name] for key in members], dtype=np.float64)
            x = x - x.mean()
            if x.any():
                rows = table[[index[key] for key in members]]
                strategies = name_of(family, json.loads(rest))
                result[name, strategies, share] = x @ rows / (x @ x)
    return result


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def shared(a: Side, b: Side) -> list[Key]:
    """List the pruned cells that both sides have."""
    both = set(a.cells()) & set(b.cells())
    families = {cell["strategy"]: cell["family"] for cell in a.scores.cells}
    return sorted(key for key in both if families[key[0]] != REFERENCE)


def is_one_model_in_two_precisions(a: Side, b: Side) -> bool:
    """Tell whether both ran the same weights on one data set, each in its own precision."""
    weights = {side.scores.facts.get("model_digest") for side in (a, b)}
    same = a.scores.facts["dataset"] == b.scores.facts["dataset"] and len(weights) == 1
    return same and None not in weights and a.precision != b.precision


def interactions(a: Side, b: Side, level: float, name_of: Name) -> Rows:
    """Return a row per metric and effect that both sides have.

    The family of tests is a pair of sides, a metric and a kind of effect.

    Args:
        a: one side.
        b: the other.
        level: of the intervals.
        name_of: names strategies by their family and the parameters that they share.

    Raises:
        PrunecalError: the sides share no pruned cell.
    """
    keys = shared(a, b)
    if not keys:
        raise PrunecalError(
            f"{a.name} and {b.name} share no strategy at the same share of visual tokens; give "
            "both studies the same strategies and budgets such as '25%'"
        )
    paired, rows = is_paired(a, b), []
    for metric in METRICS:
        pruning = [changes(side, metric, keys) for side in (a, b)]
        rows += _rows(a, b, metric, PRUNING, keys, *pruning, paired=paired, level=level)
        swept = [slopes(side, metric, keys, name_of) for side in (a, b)]
        both = sorted(set(swept[0]) & set(swept[1]))
        if is_one_model_in_two_precisions(a, b):
            every = sorted(set(a.cells()) & set(b.cells()))
            values = [side.table(metric)[[side.cells()[key] for key in every]] for side in (a, b)]
            rows += _rows(a, b, metric, PRECISION, every, *values, paired=paired, level=level)
        for name, group in itertools.groupby(both, key=lambda key: key[0]):
            sweeps = list(group)
            tables = [np.stack([side[sweep] for sweep in sweeps]) for side in swept]
            named = [(strategies, share) for _, strategies, share in sweeps]
            effect = f"slope over {name}"
            rows += _rows(a, b, metric, effect, named, *tables, paired=paired, level=level)
    return rows


def _rows(
    a: Side, b: Side, metric: str, effect: str, keys: list[Key], in_a: NDArray, in_b: NDArray,
    *, paired: bool, level: float,
) -> Rows:  # fmt: skip
    draws = min(in_a.shape[1], in_b.shape[1]) - 1
    drawn_b = in_b[:, 1 : 1 + draws]
    if not paired:  # equal seeds would otherwise pair image 1 of A with image 1 of B
        drawn_b = drawn_b[:, np.random.default_rng(draws).permutation(draws)]
    drawn = in_a[:, 1 : 1 + draws] - drawn_b
    low, high = interval(drawn, level)
    interaction = in_a[:, 0] - in_b[:, 0]
    p, adjusted = p_values(interaction, drawn, min(a.n_images, b.n_images))
    return [
        {
            "a": a.name,
            "b": b.name,
            "metric": metric,
            "effect": effect,
            "strategy": strategy,
            "share": share,
            "in_a": in_a[i, 0],
            "in_b": in_b[i, 0],
            "interaction": interaction[i],
            "ci_low": low[i],
            "ci_high": high[i],
            "p": p[i],
            "p_adjusted": adjusted[i],
            "paired": paired,
        }
        for i, (strategy, share) in enumerate(keys)
    ]
