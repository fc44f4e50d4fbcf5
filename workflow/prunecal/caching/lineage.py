"""What a cell was made from, and which results were made from something else than is here now."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

from prunecal.caching.fingerprint import source_digest
from prunecal.core import plugins
from prunecal.core.errors import PrunecalError
from prunecal.storage import files

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    import numpy as np

MADE_FROM = "made_from"  # keys of provenance.json
PREDICTIONS = "predictions_sha256"
RANKING = "ranking"  # keys of MADE_FROM, beside the names of the files that the cells share
CODE = "code"
CELLS = "prunecal.infer"
OTHER_CODE = "by other code than this checkout's"
SHARED = ("questions.parquet", "features.safetensors")


class Foreign(NamedTuple):
    """A whole file that this checkout would not have made from what lies beside it."""

    path: Path
    reason: str


def cell_code(model_family: str, cell: Mapping[str, Any]) -> str:
    """Fingerprint the code that infers a cell, given its strategy's `family`."""
    modules = [CELLS, plugins.module_name("models", model_family)]
    if plugins.load("strategies", cell["family"]).PRUNES == "inside_llm":
        modules.append(plugins.module_name("strategies", cell["family"]))
    return source_digest(*modules)


def ranking(path: Path, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a ranking's first `budget` tokens int16 [I, K] and their coverage float32 [I].

    Raises:
        PrunecalError: the file is missing or damaged, or ranks fewer tokens.
    """
    import numpy as np

    file = files.open_arrays(path)
    order, coverage = file.get_tensor("order"), file.get_tensor("coverage")
    if order.shape[1] < budget:
        raise PrunecalError(f"{path} ranks {order.shape[1]} tokens, fewer than {budget}; rank anew")
    return np.ascontiguousarray(order[:, :budget]), np.ascontiguousarray(coverage[:, budget - 1])


def ranking_digest(order: np.ndarray, coverage: np.ndarray) -> str:
    """Fingerprint what `ranking` returned."""
    return hashlib.sha256(order.tobytes() + coverage.tobytes()).hexdigest()


def foreign_files(results: Path, damaged: Collection[Path] = ()) -> list[Foreign]:
    """List features and cells made from other weights or inputs, and files of other code, sorted.

    What cannot be known is not held against a file: where a model's manifest, the features or the
    rankings are not below the folder, they are not compared.

    Args:
        results: folder of all results.
        damaged: files about which nothing can be said, with all that was made from them.
    """
    bad = set(damaged)
    found = [
        Foreign(path, "from other weights than the model's manifest lists")
        for path in sorted(results.glob("*/*/features.safetensors"))
        if path not in bad
        and (weights := _weights(results, path.parts[-3], bad)) is not None
        and files.array_facts(files.open_arrays(path)).get("model") != weights
    ]
    for path in sorted(results.glob("[!.]*/*/*/*/predictions.parquet")):
        manifest = results / "models" / path.parts[-5] / "manifest.json"
        if {path, path.with_name("provenance.json"), manifest, *_inputs(results, path)} & bad:
            continue
        try:
            reason = next(_reasons(results, path), None)
        except PrunecalError as error:  # for example a strategy that is gone
            reason = f"by something else than this checkout: {error}"
        if reason:
            found.append(Foreign(path, reason))
    known = {path for path, _ in found}
    for path in sorted(results.rglob(".*.sha256")):
        file = path.with_name(path.name[1:].removesuffix(".sha256"))
        if file not in bad | known and (reason := _other_code(results, file)):
            found.append(Foreign(file, reason))
    return sorted(found)


def _other_code(results: Path, path: Path) -> str | None:
    """Return what speaks against the code that made a file; of cells, provenance.json says it."""
    code = files.code_of(path)
    if code is None or code[1][0] == CELLS or path.relative_to(results).parts[0].startswith("."):
        return None
    try:
        same = code[0] == source_digest(*code[1])
    except ModuleNotFoundError as error:
        return f"by code that is gone ({error})"
    return None if same else OTHER_CODE


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
    if weights is not None and facts.get("model_digest") != weights:
        yield "from other weights than the model's manifest lists"
    made_from, cell = note.get(MADE_FROM), facts.get("cell")
    if note.get(PREDICTIONS) != files.recorded(path) or made_from is None or cell is None:
        yield "otherwise than provenance.json beside it says"
        return
    if made_from.get(CODE) != cell_code(facts["family"], cell):
        yield OTHER_CODE
    questions, features, ranked = _inputs(results, path)
    for name, file in zip(SHARED, (questions, features), strict=True):
        if file.is_file() and made_from.get(name) != files.recorded(file):
            yield f"from another {name}"
    is_ranked = RANKING in made_from and ranked.is_file()
    if is_ranked and made_from[RANKING] != ranking_digest(*ranking(ranked, cell["budget"])):
        yield "from another ranking.safetensors"


def _weights(results: Path, model: str, damaged: Collection[Path]) -> str | None:
    """Return the digest of a model's weights, if its manifest is there and whole."""
    path = results / "models" / model / "manifest.json"
    if path in damaged or not path.is_file():
        return None
    return files.read_object(path).get("digest")
