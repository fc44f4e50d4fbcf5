"""Verify names whole files that were made from other weights, inputs or code than are here."""

import os
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from prunecal import verify
from prunecal.caching import fingerprint, lineage
from prunecal.core.errors import PrunecalError
from prunecal.storage import files
from prunecal.storage.checksums import file_digest

SETTINGS = {"family": "llava"}
CELL = {"strategy": "saliency", "family": "saliency", "parameters": {}, "budget": 2}
INSIDE = {"strategy": "fastv-layer2", "family": "fastv", "parameters": {}, "budget": 2}
OTHER = "f" * 64


def write_features(results, weights):
    facts = {"model": weights, "image_id": ["i"]}
    files.write_arrays(results / "m" / "d" / "features.safetensors", {"x": np.ones(3)}, facts)


def write_ranking(results, order):
    arrays = {
        "order": np.array([order], np.int16),
        "coverage": np.ones((1, len(order)), np.float32),
    }
    files.write_arrays(results / "m" / "d" / "saliency" / "ranking.safetensors", arrays, {})


def write_cell(results, cell, weights="w", *, code=None, logit=0.5):
    """Write a cell's files as `infer` does."""
    task = results / "m" / "d"
    folder = task / cell["strategy"] / str(cell["budget"])
    facts = {"cell": {"model": "m", "dataset": "d", **cell}, "model_digest": weights, **SETTINGS}
    predictions = folder / "predictions.parquet"
    files.write_table(predictions, pa.table({"logits": [[logit, 0.0]]}), facts)
    inputs = (results / "datasets" / "d" / "questions.parquet", task / "features.safetensors")
    made_from = {path.name: file_digest(path) for path in inputs}
    made_from[lineage.CODE] = code or lineage.cell_code("llava", cell)
    ranking = task / cell["strategy"] / "ranking.safetensors"
    if ranking.exists():
        made_from[lineage.RANKING] = lineage.ranking_digest(
            *lineage.ranking(ranking, cell["budget"])
        )
    note = {lineage.MADE_FROM: made_from, lineage.PREDICTIONS: file_digest(predictions)}
    files.write_json(folder / "provenance.json", note)
    return predictions


@pytest.fixture
def results(tmp_path):
    results = tmp_path / "results"
    files.write_json(results / "models" / "m" / "manifest.json", {"digest": "w", "files": []})
    questions = results / "datasets" / "d" / "questions.parquet"
    files.write_table(questions, pa.table({"question_id": ["q"]}), {})
    write_features(results, "w")
    write_ranking(results, [2, 0, 1, 3])
    write_cell(results, CELL)
    write_cell(results, INSIDE)
    return results


def reasons(results):
    found = lineage.foreign_files(results, verify.damaged_files(results))
    return {str(path.relative_to(results / "m" / "d")): reason for path, reason in found}


RANKED, UNRANKED = "saliency/2/predictions.parquet", "fastv-layer2/2/predictions.parquet"
BOTH = [UNRANKED, RANKED]


def test_results_that_fit_together_are_not_named(results):
    assert reasons(results) == {}


def test_cells_of_other_code_are_named(results):
    write_cell(results, INSIDE, code="0" * 16)
    assert reasons(results) == {UNRANKED: "by other code than this checkout's"}


def test_a_changed_strategy_changes_the_code_of_its_own_cells_alone(monkeypatch, results):
    def digest(*modules):
        return " ".join(modules)

    monkeypatch.setattr(lineage, "source_digest", digest)
    codes = [lineage.cell_code("llava", cell) for cell in (CELL, INSIDE)]
    assert codes[0] == "prunecal.infer prunecal.models.llava"
    assert codes[1] == f"{codes[0]} prunecal.strategies.fastv"


def test_features_and_cells_of_other_weights_are_named(results):
    write_features(results, "other")
    write_cell(results, CELL, "other")
    write_cell(results, INSIDE, "other")
    said = "from other weights than the model's manifest lists"
    assert reasons(results) == dict.fromkeys([*BOTH, "features.safetensors"], said)


def test_weights_that_were_replaced_are_noticed(results):
    files.write_json(results / "models" / "m" / "manifest.json", {"digest": "new", "files": []})
    assert sorted(reasons(results)) == sorted([*BOTH, "features.safetensors"])


def test_a_cell_file_that_was_put_in_anothers_place_is_named(results, tmp_path):
    """With its own checksum, so that it is whole."""
    here = results / "m" / "d" / "saliency" / "2"
    shutil.copytree(results, tmp_path / "others")
    other = write_cell(tmp_path / "others", CELL, logit=0.7)
    for path in (other, files.checksum_file(other)):
        shutil.copy(path, here)
    assert verify.damaged_files(results) == []
    assert reasons(results) == {RANKED: "otherwise than provenance.json beside it says"}


@pytest.mark.parametrize("note", [{}, {"versions": {}}, None])
def test_a_cell_that_does_not_say_what_made_it_is_named(results, note):
    path = results / "m" / "d" / "saliency" / "2" / "provenance.json"
    if note is None:
        path.unlink()
        files.checksum_file(path).unlink()
    else:
        files.write_json(path, note)
    assert reasons(results) == {RANKED: "otherwise than provenance.json beside it says"}


def test_cells_of_another_ranking_are_named_if_it_differs_within_their_budget(results):
    write_ranking(results, [3, 1, 0, 2])
    assert reasons(results) == {RANKED: "from another ranking.safetensors"}
    write_ranking(results, [2, 0, 3, 1])
    assert reasons(results) == {}


def test_cells_of_other_questions_are_named(results):
    questions = results / "datasets" / "d" / "questions.parquet"
    files.write_table(questions, pa.table({"question_id": ["other"]}), {})
    assert reasons(results) == dict.fromkeys(BOTH, "from another questions.parquet")


def test_a_cell_of_a_strategy_that_is_gone_is_named(results):
    path = write_cell(results, INSIDE, code=OTHER)
    facts = files.read_facts(path)
    facts["cell"]["family"] = "gone"
    files.write_table(path, files.read_table(path), facts)
    note = files.read_json(path.with_name("provenance.json"))
    files.write_json(
        path.with_name("provenance.json"), note | {lineage.PREDICTIONS: file_digest(path)}
    )
    assert "the strategy 'gone' is unknown" in reasons(results)[UNRANKED]


STAGE = """
import sys
from prunecal.storage import files
files.made_with("prunecal.datasets.pope")
files.write_json(sys.argv[1], [1])
"""


def test_files_of_a_stage_whose_code_or_plugin_changed_are_named(results, tmp_path, monkeypatch):
    """The stage is a module of a copied package, run as the workflow runs stages."""
    package = tmp_path / "workflow" / "prunecal"
    shutil.copytree(Path(files.__file__).parents[1], package)
    (package / "toy.py").write_text(STAGE)
    monkeypatch.setattr(fingerprint, "ROOT", package.parent)
    path = results / "m" / "toy.json"

    def write():
        fingerprint._parse.cache_clear()
        command = [sys.executable, "-m", "prunecal.toy", path]
        subprocess.run(command, cwd=package.parent, env=bare_environment(), check=True)

    def changed(name):
        with (package / name).open("a") as file:
            file.write("\nCHANGED = True\n")
        fingerprint._parse.cache_clear()
        return lineage._other_code(results, path)

    write()
    assert files.code_of(path)[1] == ["prunecal.toy", "prunecal.datasets.pope"]
    assert files.undamaged(path)
    assert lineage._other_code(results, path) is None
    assert changed("datasets/scienceqa.py") is None
    for name in ("datasets/pope.py", "toy.py", "core/disk_errors.py"):
        assert changed(name) == "by other code than this checkout's"
        write()
        assert lineage._other_code(results, path) is None
    (package / "toy.py").unlink()
    fingerprint._parse.cache_clear()
    assert "code that is gone" in lineage._other_code(results, path)
    fingerprint._parse.cache_clear()


def bare_environment():
    """Return the environment without a path to this checkout's package."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def test_what_is_not_there_is_not_compared(results):
    (results / "models" / "m" / "manifest.json").unlink()
    files.checksum_file(results / "models" / "m" / "manifest.json").unlink()
    features = results / "m" / "d" / "features.safetensors"
    features.unlink()
    files.checksum_file(features).unlink()
    assert reasons(results) == {}


def test_a_damaged_file_is_named_as_damaged_alone(results):
    features = results / "m" / "d" / "features.safetensors"
    features.write_bytes(features.read_bytes()[:-1])
    assert verify.damaged_files(results) == [features]
    assert reasons(results) == {}


def test_verify_counts_both_kinds_and_repair_removes_the_damaged_alone(results, caplog):
    write_cell(results, INSIDE, code="0" * 16)
    ranking = results / "m" / "d" / "saliency" / "ranking.safetensors"
    ranking.write_bytes(b"damaged")
    message = "1 damaged files below .*`snakemake repair` removes them.* 1 files of another origin"
    with caplog.at_level("INFO", logger="prunecal"):
        with pytest.raises(PrunecalError, match=message):
            verify.main(Namespace(results=results, repair=False, record=False))
        verify.main(Namespace(results=results, repair=True, record=False))
    assert f"{UNRANKED} was made by other code than this checkout's" in caplog.text
    assert "removed 1 files" in caplog.text
    assert not ranking.exists()
    assert (results / "m" / "d" / UNRANKED).exists()
    assert (results / "m" / "d" / RANKED).exists()
    assert verify.damaged_files(results) == []
