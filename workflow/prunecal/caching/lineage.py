"""What a result was made from, and which results were made from something else than is here now."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prunecal.caching.cell_store import FILES, KEY_IN_PROVENANCE, PREDICTIONS, CellStore
from prunecal.caching.fingerprint import is_outdated, source_digest
from prunecal.core import plugins
from prunecal.core.errors import RERUN, PrunecalError
from prunecal.storage import files
from prunecal.storage.arrays import check_kept, open_arrays
from prunecal.storage.per_image import TOKENS, PerImage, starts_of_weights
from prunecal.study.budgets import Budget, folder, kept_tokens
from prunecal.study.model_settings import tower_name
from prunecal.study.paths import CELL_STORE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import numpy as np

    from prunecal.storage.arrays import Arrays

MADE_FROM = "made_from"  # a key of provenance.json
SMALLER = "smaller.safetensors"  # beside a cell: features of images that were made smaller
CLS = "signals/cls.safetensors"  # in it, for cells whose tokens hold CLS
RANKING = "ranking"  # keys of MADE_FROM, beside the names of the files that the cells share
CODE = "code"
WEIGHTS = "weights"  # the digest that the model's files matched when they were loaded
FILE = "file"  # of answers, of a cell that was imported
CELLS = "prunecal.infer"
IMPORTED_CELLS = "prunecal.imported"
IMPORTED = "imported"  # key of the metadata and the provenance of imported cells
OTHER_FORM = "in another form than this checkout's"
OTHER_CODE = "by other code than this checkout's"
SHARED = ("questions.parquet", "features.safetensors")
CELLS_BELOW = "[!.]*/*/*/*/provenance.json"  # results
STORE = Path(CELL_STORE).name
STORED_BELOW = f"{STORE}/*/*/provenance.json"


class Foreign(NamedTuple):
    """An undamaged file that this checkout would not have made from the files around it."""

    path: Path
    reason: str


def cell_code(model: Mapping[str, Any], cell: Mapping[str, Any]) -> str:
    """Fingerprint the code that infers a cell.

    Args:
        model: how its model is run: `family` and `template`.
        cell: its strategy's `family`.
    """
    family = plugins.module_name("models", model["family"])
    return source_digest(
        CELLS, family, template_entry(model["template"]), strategy_module(cell["family"])
    )


def template_entry(template: str) -> str:
    """Return the template for a digest, in which no other template counts."""
    return f"prunecal.study.prompts.TEMPLATES[{template}]"


def strategy_module(family: str) -> str:
    """Return the strategy whose code counts for a cell of a strategy `family`.

    Of one that prunes before the LLM, inference sees the ranking and the parameters alone, which
    are in a cell's key by themselves: all such count as the plainest of them, the unpruned model.
    """
    before = plugins.load("strategies", family).PRUNES == "before_llm"
    return plugins.module_name("strategies", "full" if before else family)


class Ranking(NamedTuple):
    """The part of a ranking that a budget uses.

    Attributes:
        order: of each image int16 [K], tokens in order of selection; none if tokens are merged.
        coverage: float32 [I], evidence coverage.
        places: int64, flat places of weights [K, N + 1] of all images, ascending; None if none are
            merged.
        weight: float32, those weights of CLS and patches in merged tokens; None likewise.
        starts: where the weights of each image begin, and where the last ones end.
        pairs: the image and the digest of the text that each row is of, where a strategy ranks for
            each question: I is then the number of these pairs. None if rows are images.
    """

    order: list[np.ndarray]
    coverage: np.ndarray
    places: np.ndarray | None = None
    weight: np.ndarray | None = None
    starts: list[int] | None = None
    pairs: list[tuple[str, str]] | None = None

    def held(self, image: int, tokens: int) -> np.ndarray:
        """Return how an image's patches are kept, float [N].

        1 as they are, 0.5 within merged tokens, 0 not at all.

        Args:
            image: its index, or that of the pair.
            tokens: its patches, N.
        """
        import numpy as np

        held = np.zeros(tokens)
        if self.places is None or self.weight is None or self.starts is None:
            held[self.order[image]] = 1
            return held
        start, end = np.searchsorted(self.places, self.starts[image : image + 2])
        patch = (self.places[start:end] - self.starts[image]) % (tokens + 1) - 1
        values = np.where(self.weight[start:end] >= 1, 1.0, 0.5)
        np.maximum.at(held, patch[patch >= 0], values[patch >= 0])
        return held

    @property
    def digest(self) -> str:
        """Fingerprint it."""
        more = [array for array in (self.places, self.weight) if array is not None]
        kept = b"".join(array.tobytes() for array in (*self.order, self.coverage, *more))
        return hashlib.sha256(kept).hexdigest()


def ranking(path: Path, budget: Budget) -> Ranking:
    """Return the tokens that a budget keeps, in order of selection, and their coverage.

    A strategy whose budgets are nested has one order in its file; others have arrays per budget.

    Raises:
        PrunecalError: the file is missing or damaged, or ranks fewer tokens than the budget.
    """
    import numpy as np

    file = open_arrays(path)
    if f"covered/{budget}" in file.keys():  # noqa: SIM118
        covered, counts = file.get_tensor(f"covered/{budget}"), token_counts(file)
        numbers, pairs = [kept_tokens(budget, count) for count in counts], None
        if "question" in file.facts:
            pairs = list(zip(file.facts["image_id"], file.facts["question"], strict=True))
        if f"kept/{budget}" in file.keys():  # noqa: SIM118
            rows = _by_row(path, file.get_tensor(f"kept/{budget}"), numbers)
            return Ranking(rows, covered, pairs=pairs)
        places, weight = (file.get_tensor(f"{name}/{budget}") for name in ("places", "weight"))
        return Ranking([], covered, places, weight, starts_of_weights(numbers, counts), pairs)
    file.get_tensor("order")  # checks that no token is missing
    orders, prefixes = PerImage(file, "order"), PerImage(file, "coverage")
    counts = orders.counts
    if isinstance(budget, int) and "layout" not in file.keys() and counts[0] < budget:  # noqa: SIM118
        raise PrunecalError(
            f"{path} ranks {counts[0]} tokens, fewer than the budget {budget}; "
            f"delete {path} and run snakemake again"
        )
    kept = [kept_tokens(budget, count) for count in counts]
    covered = [prefix[number - 1] for prefix, number in zip(prefixes, kept, strict=True)]
    # a part alone would hold all of its image's tokens in memory
    order = [order[:number].copy() for order, number in zip(orders, kept, strict=True)]
    return Ranking(order, np.array(covered, np.float32))


def token_counts(file: Arrays) -> list[int]:
    """Return the patches of each image of a ranking file."""
    if "order" in file.keys():  # noqa: SIM118  not a mapping
        return PerImage(file, "order").counts
    if TOKENS in file.keys():  # noqa: SIM118
        return file.get_tensor(TOKENS).tolist()
    return [file.facts["visual_tokens"]] * len(file.facts["image_id"])


def _by_row(path: Path, kept: np.ndarray, numbers: list[int]) -> list[np.ndarray]:
    """Return the kept tokens of each row, from [I, K] or from all rows one after another.

    Raises:
        PrunecalError: they are not as many as the budget keeps, or a row has one twice.
    """
    import numpy as np

    flat = kept.reshape(-1)
    if len(flat) != sum(numbers):
        raise PrunecalError(f"{path} keeps other numbers of tokens than its budget; {RERUN}")
    orders = np.split(flat, np.cumsum(numbers)[:-1])
    for order in orders if kept.ndim == 1 else ():
        check_kept(path, order[None])
    return orders


def foreign_files(results: Path, damaged: Collection[Path] = ()) -> list[Foreign]:
    """List features and cells made from other weights or inputs, and files of other code, sorted.

    Only what is known is compared: if a model's manifest, the features or the rankings are not
    below the folder, they are skipped.

    Args:
        results: folder of all results.
        damaged: files about which nothing can be said, with all that was made from them.
    """
    bad = set(damaged)
    made = {path: path.parts[-3] for path in results.glob("*/*/features.safetensors")}
    made |= {
        path: tower_name(path.parts[-4]) for path in results.glob("*/*/signals/text_*.safetensors")
    }
    foreign = []
    for path, model in sorted(made.items()):
        weights = None if path in bad else _weights(results, model, bad)
        try:
            if weights is not None and open_arrays(path).facts.get("model") != weights:
                foreign.append(Foreign(path, "from other weights than the model's manifest lists"))
        except PrunecalError as error:
            foreign.append(Foreign(path, f"{OTHER_FORM}: {error}"))
    named = {path for path, _ in foreign}
    foreign += [
        Foreign(path, "from the images of another data set")
        for path in sorted(results.glob("*/*/features.safetensors"))
        if path not in bad | named
        and (sources := files.sources_of(path))
        and results / "datasets" / path.parts[-2] / "images.parquet" not in sources
    ]
    for path in sorted(results.glob("[!.]*/*/*/*/predictions.parquet")):
        manifest = results / "models" / path.parts[-5] / "manifest.json"
        if {path, path.with_name("provenance.json"), manifest, *_inputs(results, path)} & bad:
            continue
        try:
            reason, copy = next(_reasons(results, path), None), _unlike_copy(results, path)
        except PrunecalError as error:  # for example a strategy that is gone
            reason, copy = f"by something else than this checkout: {error}", None
        if copy:  # neither is known to be the right one
            foreign.append(Foreign(copy, f"otherwise than {path}, its copy"))
            reason = reason or f"otherwise than its copy {copy}"
        if reason:
            foreign.append(Foreign(path, reason))
    known = {path for path, _ in foreign}
    foreign += [
        Foreign(path, OTHER_CODE)
        for path in files.written_files(results)
        if path not in bad | known
        and not any(part.startswith(".") for part in path.relative_to(results).parts[:-1])
        and (code := files.code_of(path))
        and CELLS not in code.split()  # whose code provenance.json tells cell by cell
        and is_outdated(code)
    ]
    return sorted(foreign)


def _inputs(results: Path, path: Path) -> list[Path]:
    """Return the questions, features and ranking of a cell's predictions, there or not."""
    task = path.parents[2]
    questions = results / "datasets" / task.name / "questions.parquet"
    return [questions, task / "features.safetensors", path.parents[1] / "ranking.safetensors"]


def _reasons(results: Path, path: Path) -> Iterator[str]:
    """Yield what speaks against a cell's predictions."""
    facts, beside = files.read_facts(path), path.with_name("provenance.json")
    note = files.read_object(beside) if beside.is_file() else {}
    weights = _weights(results, path.parts[-5], ())
    if weights is not None and IMPORTED not in facts and facts.get("model_digest") != weights:
        yield "from other weights than the model's manifest lists"
    made_from, cell = note.get(MADE_FROM), facts.get("cell")
    if note.get(PREDICTIONS) != files.recorded(path) or made_from is None or cell is None:
        yield "otherwise than its provenance.json says"
        return
    names = [str(cell.get(key)) for key in ("model", "dataset", "strategy", "budget")]
    if (*names[:3], folder(names[3])) != path.parts[-5:-1]:
        yield f"as the cell {' '.join(names)}, which is another than its folder names"
    if IMPORTED in facts:
        if made_from.get(CODE) != source_digest(IMPORTED_CELLS):
            yield OTHER_CODE
        questions = _inputs(results, path)[0]
        if questions.is_file() and made_from.get(questions.name) != files.recorded(questions):
            yield f"from another {questions.name}"
        return
    if made_from.get(CODE) != cell_code(facts, cell):
        yield OTHER_CODE
    if made_from.get(WEIGHTS) != facts.get("model_digest"):
        yield "from weights that were not checked when they were loaded"
    questions, features, ranked = _inputs(results, path)
    for name, file in zip(SHARED, (questions, features), strict=True):
        if file.is_file() and made_from.get(name) != files.recorded(file):
            yield f"from another {name}"
    known = RANKING in made_from and ranked.is_file()
    if known and made_from[RANKING] != ranking(ranked, cell["budget"]).digest:
        yield "from another ranking.safetensors"
    smaller = path.with_name(SMALLER)
    if smaller.is_file() and made_from.get(SMALLER) != files.recorded(smaller):
        yield f"from another {SMALLER}"
    cls = features.parent / CLS
    if CLS in made_from and cls.is_file() and made_from[CLS] != files.recorded(cls):
        yield f"from another {CLS}"


def _unlike_copy(results: Path, path: Path) -> Path | None:
    """Return the stored copy of a cell's predictions, named in its provenance, if it differs."""
    beside = path.with_name("provenance.json")
    key = files.read_object(beside).get(KEY_IN_PROVENANCE) if beside.is_file() else None
    if not isinstance(key, str) or "/" in key:
        return None
    copy = CellStore(results / STORE).folder(key) / FILES[0]
    differs = copy.is_file() and files.recorded(copy) not in (None, files.recorded(path))
    return copy if differs else None


def _weights(results: Path, model: str, damaged: Collection[Path]) -> str | None:
    """Return the digest of a model's weights, if its manifest is there and undamaged."""
    path = results / "models" / model / "manifest.json"
    if path in damaged or not path.is_file():
        return None
    return files.read_object(path).get("digest")
