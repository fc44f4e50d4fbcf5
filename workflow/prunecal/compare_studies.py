"""Two finished studies side by side: does pruning, or a strategy's parameter, act differently?

A study is given by its folder of aggregates (`results`, `results/{study}`). What is set side by
side, A and B: the same data set under two models (or one model in two dtypes), else the same model
on two data sets, else, where each study has one model and one data set, those. Cells agree in
strategy and in the share of visual tokens that they keep.

An interaction is effect in A minus effect in B. Effects are a strategy's change from the unpruned
model at each budget, and the slope of a metric over each parameter that both studies sweep. Where
both were asked of the same images (same ids, same bytes) and scored with the same draws, the
interval pairs them draw by draw; else the draws are independent and B's are shuffled.
"""

import argparse
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prunecal.core import cli
from prunecal.core.errors import PrunecalError
from prunecal.figures.naming import strategy_name
from prunecal.report.studies import PRUNING, findings
from prunecal.statistics.bootstrap import interval
from prunecal.statistics.predictions import POOLED
from prunecal.statistics.scores import REFERENCE, Scores, read_scores
from prunecal.statistics.significance import step_down, unadjusted_p
from prunecal.statistics.tables import Rows, write_csv
from prunecal.storage import files

METRICS = ("accuracy", "ece", "brier", "aurc")
COLUMNS = [
    "a", "b", "metric", "effect", "strategy", "share", "in_a", "in_b", "interaction", "ci_low",
    "ci_high", "p", "p_adjusted", "paired",
]  # fmt: skip
Key = tuple[str, float]  # strategy, share of the visual tokens


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
    def results(self) -> Path:
        """Folder of the data sets and cells: the aggregates of a named study lie below it."""
        named = files.read_object(self.folder / "study.json").get("study")
        return self.folder.parent if named else self.folder

    def cells(self) -> dict[Key, int]:
        """Return the place of each cell by strategy and share of visual tokens kept."""
        whole = self.scores.cells[self.scores.reference]["budget"]
        return {
            (cell["strategy"], round(cell["budget"] / whole, 6)): index
            for index, cell in enumerate(self.scores.cells)
        }

    def table(self, metric: str) -> NDArray:
        """Return the value and then the draws of each cell, float64 [cells, 1 + R]."""
        subset = self.scores.subset(POOLED)
        value = self.scores.value(metric)[:, subset, None]
        return np.concatenate([value, self.scores.draws(metric)[:, subset]], axis=1)

    def images(self) -> dict[str, str]:
        """Return the digest of each image that was asked about, by id."""
        folder = self.results / "datasets" / self.scores.facts["dataset"]
        asked = files.read_table(folder / "questions.parquet", ["image_id"])
        table = files.read_table(folder / "images.parquet", ["image_id", "bytes"])
        wanted = set(asked.column("image_id").to_pylist())
        columns = (table.column(name).to_pylist() for name in ("image_id", "bytes"))
        return {
            image: hashlib.sha256(content).hexdigest()
            for image, content in zip(*columns, strict=True)
            if image in wanted
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
    for key in ("dataset", "model"):
        found = [(a, b) for a, b in every if a.scores.facts[key] == b.scores.facts[key]]
        if found:
            return found
    if len(every) == 1:
        return every
    raise PrunecalError(
        f"{first[0].folder} and {second[0].folder} have neither a model nor a data set in common; "
        "name them alike in both studies, or give studies of one model and data set each"
    )


def is_paired(a: Side, b: Side) -> bool:
    """Tell whether draw r resamples the same images in both."""
    return a.scores.facts["seed"] == b.scores.facts["seed"] and a.images() == b.images()


def changes(side: Side, metric: str, wanted: list[Key]) -> NDArray:
    """Return the change from the unpruned model of each wanted cell, float64 [cells, 1 + R]."""
    table, place = side.table(metric), side.cells()
    return table[[place[key] for key in wanted]] - table[side.scores.reference]


def slopes(side: Side, metric: str, wanted: list[Key]) -> dict[tuple[str, str, float], NDArray]:
    """Return slopes over swept parameters by (parameter, strategies' name, share), [1 + R].

    A sweep is two or more of the wanted cells that differ in one number alone (no seed) and keep
    the same share of tokens. The slope is the least-squares one.
    """
    place = side.cells()
    cells = {key: side.scores.cells[place[key]] for key in wanted}
    numeric = {
        name
        for cell in cells.values()
        for name, value in cell["parameters"].items()
        if _is_number(value) and name != "seed"
    }
    table, found = side.table(metric), {}
    for name in sorted(numeric):
        groups: dict[tuple[str, str, float], list[Key]] = {}
        for key, cell in cells.items():
            others = {k: v for k, v in cell["parameters"].items() if k != name}
            if _is_number(cell["parameters"].get(name)):
                kind = cell["family"], files.canonical_json(others), key[1]
                groups.setdefault(kind, []).append(key)
        for (family, others, share), members in groups.items():
            x = np.array([cells[key]["parameters"][name] for key in members], dtype=np.float64)
            x = x - x.mean()
            if x.any():
                rows = table[[place[key] for key in members]]
                found[name, strategy_name(family, json.loads(others)), share] = x @ rows / (x @ x)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def shared(a: Side, b: Side) -> list[Key]:
    """List the pruned cells that both sides have."""
    both = set(a.cells()) & set(b.cells())
    families = {cell["strategy"]: cell["family"] for cell in a.scores.cells}
    return sorted(key for key in both if families[key[0]] != REFERENCE)


def interactions(a: Side, b: Side, level: float) -> Rows:
    """Return a row per metric and effect that both sides have.

    The family of tests is a pair of sides, a metric and a kind of effect.

    Raises:
        PrunecalError: the sides share no pruned cell.
    """
    wanted = shared(a, b)
    if not wanted:
        raise PrunecalError(
            f"{a.name} and {b.name} share no strategy at the same share of visual tokens; give "
            "both studies the same strategies and budgets such as '25%'"
        )
    paired, rows = is_paired(a, b), []
    for metric in METRICS:
        pruning = [changes(side, metric, wanted) for side in (a, b)]
        rows += _rows(a, b, metric, PRUNING, wanted, *pruning, paired=paired, level=level)
        swept = [slopes(side, metric, wanted) for side in (a, b)]
        both = sorted(set(swept[0]) & set(swept[1]))
        for name, group in itertools.groupby(both, key=lambda key: key[0]):
            keys = list(group)
            tables = [np.stack([found[key] for key in keys]) for found in swept]
            named = [(strategy, share) for _, strategy, share in keys]
            rows += _rows(a, b, metric, f"slope over {name}", named, *tables, paired=paired,
                          level=level)  # fmt: skip
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
    p, adjusted = unadjusted_p(interaction, drawn), step_down(interaction, drawn)
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


def main(arguments: argparse.Namespace) -> None:
    """Write interactions.csv, the same as LaTeX, the figure and the page."""
    from prunecal.figures import interaction, style
    from prunecal.report import html, latex

    if len(arguments.studies) != 2:
        raise PrunecalError(
            f"{len(arguments.studies)} studies cannot be compared: name two, for example "
            "`snakemake compare_studies --config studies=[results,llava-1.5-7b]`"
        )
    first, second = (read_sides(folder) for folder in arguments.studies)
    rows = [row for a, b in pairs(first, second) for row in interactions(a, b, arguments.level)]
    write_csv(arguments.folder / "interactions.csv", rows, COLUMNS)
    latex.convert(arguments.folder / "interactions.csv", arguments.folder)
    style.use()
    style.save(interaction.draw(rows), arguments.folder, "interactions")
    words = findings(rows)
    picture = (arguments.folder / "interactions.svg").read_bytes()
    page = arguments.folder / "comparison.html"
    html.write(page, "studies", title="Two studies side by side", findings=words, figure=picture)
    for sides, sentences in words.items():
        cli.log.info("%s", " ".join([sides, *sentences]))


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the stage's command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("--studies", type=Path, nargs="*", help="two folders, A and B")
    parser.add_argument("--folder", type=Path, required=True, help="where the comparison goes")
    parser.add_argument("--level", type=float, default=0.95, help="of the intervals")
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
