"""The questions whose confidence changes most against the unpruned model, as a page of HTML.

A question's change is the largest change of confidence, up or down, that any strategy makes at any
budget. The page shows an equal share of questions for each model and data set, the largest changes
first, all strategies at the budget of that change; identical questions about one image count once.
"""

import argparse
import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prunecal.caching import lineage
from prunecal.core import cli
from prunecal.core.errors import PrunecalError, counted
from prunecal.figures import cell_selection, naming, style
from prunecal.figures.kept_tokens import grid_of, square
from prunecal.report import html
from prunecal.sources.image_files import decoded
from prunecal.statistics.predictions import read_cell
from prunecal.storage import files
from prunecal.storage.arrays import open_arrays
from prunecal.storage.checksums import text_digest
from prunecal.storage.held_patches import HeldPatches

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

    from prunecal.study.budgets import Budget

COUNT = 50


class Answered(NamedTuple):
    """What one cell answered, [n] each."""

    answer: NDArray  # int64, index of the largest logit, the lowest of a tie
    confidence: NDArray  # float64, its probability
    kept: NDArray  # visual tokens
    texts: list[str] | None = None  # short answers


class Change(NamedTuple):
    """A question and the cell that changes its confidence most."""

    question: int  # row of the data set
    cell: int  # row of the table of cells
    size: float  # change of confidence, with its sign


def read_answers(path: Path) -> Answered:
    """Read a cell's answers, and let go of the rest of it."""
    cell = read_cell(path)
    return Answered(cell.prediction, cell.confidence, cell.n_visual, cell.texts)


def largest_changes(
    confidence: NDArray, reference: int, same: list[Any], count: int
) -> list[Change]:
    """Select questions by their largest change of confidence, the largest first.

    Args:
        confidence: float [cells, n].
        reference: row of the unpruned model.
        same: per question what it asks; of equal ones the first counts.
        count: how many to select.
    """
    change = confidence - confidence[reference]
    first = np.array(list({key: index for index, key in reversed([*enumerate(same)])}.values()))
    first.sort()
    cell = np.abs(change[:, first]).argmax(axis=0)
    size = change[cell, first]
    order = np.argsort(-np.abs(size), kind="stable")[:count]
    return [Change(int(first[i]), int(cell[i]), float(size[i])) for i in order]


def path_along(patches: NDArray, grid: tuple[int, int]) -> str:
    """Return an SVG path along some patches, side 1 each, of a grid.

    Args:
        patches: which ones, bool [N].
        grid: rows and columns.
    """
    parts = []
    for y, line in enumerate(patches.astype(np.int8).reshape(grid)):
        edges = np.flatnonzero(np.diff(line, prepend=0, append=0))
        parts += [f"M{a} {y}h{b - a}" for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return "".join(parts)


def picture_uri(image: "Image", mode: str, mean: list[float]) -> str:
    """Return an image, square as the model sees it and small, as a data URI of PNG or JPEG."""
    from PIL.Image import fromarray

    image = fromarray(square(image, mode, mean))
    encoded = []
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 82})):
        held = io.BytesIO()
        image.save(held, kind, **options)
        encoded.append((len(held.getvalue()), kind, held.getvalue()))
    _, kind, smallest = min(encoded)
    return f"data:image/{kind};base64,{base64.b64encode(smallest).decode()}"


def budget_words(path: Path, kept: int) -> str:
    """Return a cell's budget as the study names it, of a share also an image's kept tokens."""
    budget = files.read_facts(path)["cell"]["budget"]
    if isinstance(budget, int):
        return counted(budget, "token")
    return f"{budget.replace('%', ' %')} ({counted(kept, 'token')})"


class Task:
    """One model on one data set: its cells, questions and rankings.

    Args:
        cells: rows of `answers.catalogue` with name and place, the unpruned model among them.
        questions: the data set's questions.
        rankings: path by strategy.
    """

    def __init__(self, cells: "pd.DataFrame", questions: "pd.DataFrame", rankings: dict[str, Path]):
        self.cells = cells.to_dict("records")
        self.questions = questions.to_dict("records")
        self.rankings = rankings
        self._read: dict[tuple[Path, Budget], lineage.Ranking] = {}
        self._held: dict[Path, HeldPatches] = {}
        self.answers = [read_answers(cell["path"]) for cell in self.cells]
        self.model, self.dataset = (self.cells[0][key] for key in ("model", "dataset"))
        for cell, answered in zip(self.cells, self.answers, strict=True):
            if len(answered.answer) != len(self.questions):
                raise PrunecalError(
                    f"{cell['path']} has {len(answered.answer)} answers for {len(self.questions)} "
                    f"questions of {self.dataset}; delete it and run snakemake again"
                )
        unpruned = [i for i, cell in enumerate(self.cells) if cell["family"] == style.REFERENCE]
        if not unpruned:
            raise PrunecalError(f"{self.model} on {self.dataset} has no unpruned cell; add `full`")
        self.reference = unpruned[0]

    def changes(self, count: int) -> list[Change]:
        """Select the questions."""
        confidence = np.stack([answered.confidence for answered in self.answers])
        same = [(one["image_id"], one["text"], tuple(one["options"])) for one in self.questions]
        return largest_changes(confidence, self.reference, same, count)

    def card(self, change: Change) -> dict[str, Any]:
        """Return what the page shows of a question."""
        cell, question = self.cells[change.cell], self.questions[change.question]
        start = question["text"].splitlines()[0][:90] if question["text"] else ""
        where = (self.dataset, self.model, question["subset"], question["image_id"])
        rows = self._rows(change)
        kept = int(self.answers[change.cell].kept[change.question])
        # an image that is shown as a square is drawn in the shape of its grid of patches
        grid = next((row["patches"][:2] for row in rows if row["patches"]), (1, 1))
        return {
            "title": f"{html.signed(change.size, 2)} by {cell['name']} at "
            f"{budget_words(cell['path'], kept)}: {start}",
            "question": question,
            "place": " · ".join(where),
            "rows": rows,
            "sides": [side / max(grid) for side in grid],
        }

    def _rows(self, change: Change) -> list[dict[str, Any]]:
        """Return what each strategy answers at the change's budget, the unpruned model first."""
        budget, question = self.cells[change.cell]["budget"], self.questions[change.question]
        rows = []
        for index, (cell, answered) in enumerate(zip(self.cells, self.answers, strict=True)):
            if cell["budget"] == budget or index == self.reference:
                answer = int(answered.answer[change.question])
                before = self.answers[self.reference].confidence[change.question]
                confidence = float(answered.confidence[change.question])
                rows.append(
                    {
                        "name": cell["name"],
                        "answer": question["options"][answer]
                        if answered.texts is None
                        else answered.texts[change.question],
                        "right": answer == question["label"],
                        "confidence": confidence,
                        "change": confidence - before,
                        "largest": index == change.cell,
                        "patches": self._patches(cell, change.question),
                        "kept": int(answered.kept[change.question]),
                    }
                )
        return rows

    def _patches(self, cell: Mapping[str, Any], question: int) -> tuple[Any, ...] | None:
        """Return a grid's rows and columns, and paths of the patches dropped and of the merged."""
        if cell["family"] == style.REFERENCE or not self.rankings:
            return None
        ranked = cell["strategy"] in self.rankings
        path = self.rankings[cell["strategy"]] if ranked else next(iter(self.rankings.values()))
        image = self.questions[question]["image_id"]
        file = open_arrays(path)
        index = file.facts["image_id"].index(image)
        if "question" in file.facts:
            pairs = list(zip(file.facts["image_id"], file.facts["question"], strict=True))
            index = pairs.index((image, text_digest(self.questions[question]["text"])))
        tokens = lineage.token_counts(file)[index]
        grid = grid_of(file, index, tokens)
        if grid is None:
            return None
        held = self._ranked(path, cell["path"], index, tokens) if ranked else None
        if held is None:  # inside the decoder
            if cell["path"] not in self._held:
                self._held[cell["path"]] = HeldPatches(cell["path"])
            of_cell = self._held[cell["path"]]
            if not of_cell:
                return None
            held = of_cell.of(question, tokens)
        paths = (path_along(patches, grid) for patches in (held == 0, (held > 0) & (held < 1)))
        return *grid, *paths

    def _ranked(self, path: Path, cell: Path, image: int, tokens: int) -> NDArray:
        """Return how an image's patches are kept by a ranking at a cell's budget."""
        budget = files.read_facts(cell)["cell"]["budget"]
        if (path, budget) not in self._read:
            self._read[path, budget] = lineage.ranking(path, budget)
        return self._read[path, budget].held(image, tokens)


def read_tasks(arguments: argparse.Namespace) -> list[Task]:
    """Read the cells, questions and rankings of each model and data set."""
    cells = cell_selection.catalogue(arguments.predictions)
    bare = cells.drop(columns="path")
    strategies, looks = naming.strategies(bare), style.styles(bare)
    siblings: dict[str, list[dict[str, Any]]] = {}
    for family, parameters in strategies.values():
        siblings.setdefault(family, []).append(parameters)
    names = {
        label: naming.strategy_name(family, parameters, siblings[family])
        for label, (family, parameters) in strategies.items()
    }
    cells = cells.assign(
        name=[names[label] for label in cells["strategy"]],
        place=[looks[label].place for label in cells["strategy"]],
    ).sort_values(["place", "strategy", "budget"], kind="stable")
    questions = {path.parent.name: path for path in arguments.questions}
    tasks = []
    for (model, dataset), here in cells.groupby(["model", "dataset"], sort=True):
        columns = ["image_id", "subset", "text", "options", "label"]
        table = files.read_table(questions[dataset], columns, ["answers"]).to_pandas()
        rankings = {
            path.parent.name: path
            for path in arguments.rankings
            if path.parts[-4:-2] == (model, dataset)
        }
        tasks.append(Task(here, table, rankings))
    return tasks


def main(arguments: argparse.Namespace) -> None:
    """Write the page."""
    tasks = read_tasks(arguments)
    share = -(-arguments.count // len(tasks))
    changes = [(task, change) for task in tasks for change in task.changes(share)]
    changes.sort(key=lambda pair: -abs(pair[1].size))
    cards = [task.card(change) for task, change in changes]
    means = {
        path.parent.name: files.read_object(path)["image_mean"] for path in arguments.manifests
    }
    for path in arguments.images:
        pairs = zip(changes, cards, strict=True)
        here = [(task, card) for (task, _), card in pairs if task.dataset == path.parent.name]
        shown = {card["question"]["image_id"] for _, card in here}
        _, rows = files.read_rows(path, ["image_id", "bytes"])
        contents = {one["image_id"]: one["bytes"] for one in rows if one["image_id"] in shown}
        for task, card in here:
            image_id = card["question"]["image_id"]
            image = decoded(path, image_id, contents[image_id])
            mode = "crop" if task.model in arguments.crop else "pad"
            mode = "stretch" if task.model in arguments.stretch else mode
            card["picture"] = picture_uri(image, mode, means[task.model])
    html.write(
        arguments.output, "single_questions", title="The largest changes of confidence", cards=cards
    )


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the stage's command line."""
    parser = cli.parser(__doc__, "--predictions", "--rankings", "--manifests")
    parser.add_argument("--questions", type=Path, nargs="+", required=True, help="of all data sets")
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="of all data sets")
    parser.add_argument("--crop", nargs="*", default=[], help="models that crop their images")
    parser.add_argument("--stretch", nargs="*", default=[], help="models whose grid is no square")
    parser.add_argument("--count", type=int, default=COUNT, help="questions on the page")
    parser.add_argument("--output", type=Path, required=True, help="HTML to write")
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
