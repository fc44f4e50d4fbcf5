"""Verify names whole files that were made from other weights, inputs or code than are here."""

import shutil
from argparse import Namespace
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from prunecal import verify
from prunecal.caching import code_files, fingerprint, library_versions, lineage, reach
from prunecal.caching.cell_store import KEY_IN_PROVENANCE
from prunecal.core.errors import PrunecalError
from prunecal.sources import model_folder
from prunecal.storage import files
from prunecal.storage.arrays import write_arrays
from prunecal.storage.checksums import file_digest

SETTINGS = {"family": "llava", "template": "vicuna_v1"}
CELL = {"strategy": "saliency", "family": "saliency", "parameters": {}, "budget": 2}
INSIDE = {"strategy": "fastv-layer2", "family": "fastv", "parameters": {}, "budget": 2}
OTHER = "f" * 64
WEIGHTS = model_folder.digest_of([])


def write_features(results, weights):
    facts = {"model": weights, "image_id": ["i"]}
    write_arrays(results / "m" / "d" / "features.safetensors", {"x": np.ones(3)}, facts)


def write_ranking(results, order):
    arrays = {
        "order": np.array([order], np.int16),
        "coverage": np.ones((1, len(order)), np.float32),
    }
    write_arrays(results / "m" / "d" / "saliency" / "ranking.safetensors", arrays, {})


def write_cell(results, cell, weights=WEIGHTS, *, code=None, logit=0.5):
    """Write a cell's files as `infer` does."""
    task = results / "m" / "d"
    folder = task / cell["strategy"] / str(cell["budget"])
    facts = {"cell": {"model": "m", "dataset": "d", **cell}, "model_digest": weights, **SETTINGS}
    predictions = folder / "predictions.parquet"
    files.write_table(predictions, pa.table({"logits": [[logit, 0.0]]}), facts)
    inputs = (results / "datasets" / "d" / "questions.parquet", task / "features.safetensors")
    made_from = {path.name: file_digest(path) for path in inputs}
    made_from[lineage.WEIGHTS] = weights
    made_from[lineage.CODE] = code or lineage.cell_code(SETTINGS, cell)
    ranking = task / cell["strategy"] / "ranking.safetensors"
    if ranking.exists():
        made_from[lineage.RANKING] = lineage.ranking(ranking, cell["budget"]).digest
    note = {lineage.MADE_FROM: made_from, lineage.PREDICTIONS: file_digest(predictions)}
    files.write_json(folder / "provenance.json", note)
    return predictions


@pytest.fixture
def results(tmp_path):
    results = tmp_path / "results"
    files.write_json(results / "models" / "m" / "manifest.json", {"digest": WEIGHTS, "files": []})
    questions = results / "datasets" / "d" / "questions.parquet"
    files.write_table(questions, pa.table({"question_id": ["q"]}), {})
    write_features(results, WEIGHTS)
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
    codes = [lineage.cell_code(SETTINGS, cell) for cell in (CELL, INSIDE)]
    start = "prunecal.infer prunecal.models.llava prunecal.study.prompts.TEMPLATES[vicuna_v1]"
    assert codes == [f"{start} prunecal.strategies.{name}" for name in ("full", "fastv")]


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
    assert reasons(results) == {RANKED: "otherwise than its provenance.json says"}


@pytest.mark.parametrize("note", [{}, {"versions": {}}, None])
def test_a_cell_that_does_not_say_what_made_it_is_named(results, note):
    path = results / "m" / "d" / "saliency" / "2" / "provenance.json"
    if note is None:
        path.unlink()
        files.checksum_file(path).unlink()
    else:
        files.write_json(path, note)
    assert reasons(results) == {RANKED: "otherwise than its provenance.json says"}


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


@pytest.mark.slow
def test_files_of_a_stage_whose_code_or_plugin_changed_are_named(results, tmp_path, monkeypatch):
    package = tmp_path / "workflow" / "prunecal"
    shutil.copytree(Path(files.__file__).parents[1], package)
    monkeypatch.setattr(code_files, "ROOT", package.parent)
    path = results / "m" / "d" / "other.json"

    def forget():
        fingerprint._digest.cache_clear()
        code_files.code_path.cache_clear()
        reach._modules.clear()

    def write():
        """Write the file as a job does that a rule gave its code."""
        forget()
        code = fingerprint.code_record("prunecal.rank", "prunecal.strategies.scope")
        with monkeypatch.context() as patch:
            patch.setenv(files.CODE_VARIABLE, code)
            files.write_json(path, [1])

    def changed(name, old, new):
        text = (package / name).read_text()
        assert old in text
        (package / name).write_text(text.replace(old, new))
        forget()
        return reasons(results).get("other.json")

    write()
    assert files.undamaged(path)
    assert changed("rank.py", "images at a time", "images together") is None
    assert changed("strategies/random.py", "seed", "seeds") is None
    for name, old, new in (
        ("rank.py", "BATCH = 32", "BATCH = 16"),
        ("strategies/scope.py", "CANDIDATES = 4", "CANDIDATES = 5"),
    ):
        assert changed(name, old, new) == "by other code than this checkout's"
        write()
        assert reasons(results).get("other.json") is None
    (package / "rank.py").unlink()
    forget()
    assert reasons(results)["other.json"] == "by other code than this checkout's"
    forget()


def write_versions(results, cell, torch_version):
    path = results / "m" / "d" / cell["strategy"] / "2" / "provenance.json"
    note = files.read_json(path) | {
        KEY_IN_PROVENANCE: cell["strategy"],
        "versions": {
            "torch": torch_version,
            "transformers": metadata.version("transformers"),
        },
    }
    files.write_json(path, note)
    stored = results / ".cells" / "ab" / cell["strategy"]
    shutil.copytree(path.parent, stored)
    return stored


def test_l_versions_that_differ_are_named_and_their_cells_removed_on_request(results, caplog):
    here = torch_here()
    kept, removed = write_versions(results, CELL, here), write_versions(results, INSIDE, "2.0.0")
    with caplog.at_level("INFO", logger="prunecal"):
        verify.main(arguments(results))
        named = f"made by 2 versions of torch: 2.0.0 (1 cell), {here} (1 cell)"
        assert named in caplog.text
        assert f"1 of 2 cells were made by other versions than torch {here}" in caplog.text
        assert "transformers" not in caplog.text.partition("1 of 2 cells")[0]
        verify.main(arguments(results, other_versions=True))
    assert "removed 1 cells of other versions" in caplog.text
    assert kept.exists()
    assert (results / "m" / "d" / RANKED).exists()
    assert not removed.exists()
    assert not (results / "m" / "d" / UNRANKED).exists()
    assert library_versions.version_remarks(results) == []


def test_l_cells_of_one_other_version_are_named_too(results):
    for cell in (CELL, INSIDE):
        write_versions(results, cell, "2.0.0")
    (remark,) = library_versions.version_remarks(results)
    assert remark.startswith(f"2 of 2 cells were made by other versions than torch {torch_here()}")


def torch_here():
    return torch.__version__


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


def test_a_cell_whose_weights_were_not_checked_is_named(results):
    provenance = (results / "m" / "d" / RANKED).with_name("provenance.json")
    note = files.read_json(provenance)
    del note[lineage.MADE_FROM][lineage.WEIGHTS]
    files.write_json(provenance, note)
    said = "from weights that were not checked when they were loaded"
    assert reasons(results) == {RANKED: said}


def test_verify_counts_both_kinds_and_each_repair_removes_its_own_alone(results, caplog):
    write_cell(results, INSIDE, code="0" * 16)
    ranking = results / "m" / "d" / "saliency" / "ranking.safetensors"
    ranking.write_bytes(b"damaged")
    message = "1 damaged files: `s repair` removes.*; 1 outdated files: `s repair_outdated` removes"
    with caplog.at_level("INFO", logger="prunecal"):
        with pytest.raises(PrunecalError, match=message):
            verify.main(arguments(results))
        verify.main(arguments(results, repair=True))
    assert f"{UNRANKED} was made by other code than this checkout's" in caplog.text
    assert "removed 1 files" in caplog.text
    assert not ranking.exists()
    assert (results / "m" / "d" / UNRANKED).exists()
    assert (results / "m" / "d" / RANKED).exists()
    assert verify.damaged_files(results) == []
    verify.main(arguments(results, outdated=True))
    assert not (results / "m" / "d" / UNRANKED).exists()
    assert (results / "m" / "d" / RANKED).exists()
    verify.main(arguments(results))


def arguments(results, **wishes):
    """Return what verify's command line gives."""
    names = ("repair", "outdated", "record", "other_versions", "settings", "log")
    return Namespace(results=results, command="s", **(dict.fromkeys(names) | wishes))
