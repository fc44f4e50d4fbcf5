import json
import os
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pyarrow as pa
import pytest

from prunecal import verify
from prunecal.caching import lineage
from prunecal.caching.cell_store import KEY_IN_PROVENANCE
from prunecal.core.errors import PrunecalError
from prunecal.sources import hub, model_folder
from prunecal.storage import files
from prunecal.storage.checksums import file_digest
from prunecal.study.cells import load_study


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    for at in range(3):
        files.write_json(folder / "model" / "data" / f"file{at}.json", {"at": at})
    files.write_json(folder / ".cells" / "ab" / "cell.json", {"cell": 1})
    (folder / "not-ours.txt").write_text("has no checksum")
    return folder


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def pipe(path):
    """Put a pipe in a file's place, from which a reader would wait for ever."""
    path.unlink()
    os.mkfifo(path)


DAMAGES = {"flipped": flip, "truncated": truncate, "missing": Path.unlink, "a pipe": pipe}


def run(results, *options):
    return subprocess.run(
        [sys.executable, "-m", "prunecal.verify", results, *options],
        cwd=Path(verify.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )


def test_untouched_results_pass(results):
    assert verify.damaged_files(results) == []
    done = run(results)
    assert done.returncode == 0
    assert "0 damaged files" in done.stderr


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("name", ["model/data/file1.json", ".cells/ab/cell.json"])
def test_every_kind_of_damage_is_found(results, name, damage):
    damage(results / name)
    assert verify.damaged_files(results) == [results / name]


def test_a_damaged_file_fails_the_check_and_a_repair_removes_it_alone(results):
    flip(results / "model" / "data" / "file1.json")
    (results / "model" / "data" / "file2.json").unlink()
    done = run(results)
    assert done.returncode == 1
    assert f"{results}/model/data/file1.json is missing or not as it was written" in done.stderr
    assert "2 damaged files: `snakemake --cores 1 repair` removes them" in done.stderr
    assert (results / "model" / "data" / "file1.json").exists()

    done = run(results, "--repair")
    assert done.returncode == 0, done.stderr
    assert "removed 2 files" in done.stderr
    left = sorted(path.name for path in (results / "model" / "data").iterdir())
    assert left == [".file0.json.sha256", "file0.json"]
    assert (results / "not-ours.txt").exists()
    assert verify.damaged_files(results) == []


def test_a_folder_in_a_files_place_is_left_to_the_user(results):
    path = results / "model" / "data" / "file1.json"
    path.unlink()
    path.mkdir()
    (path / "kept").touch()
    assert verify.damaged_files(results) == [path]
    with pytest.raises(PrunecalError, match="file1.json is a folder in the place of a file; move"):
        verify.main(arguments(results, results, repair=True))
    assert (path / "kept").exists()


SOURCES = ["trained", "local", "hub"]


@pytest.fixture
def place(request, results, tmp_path, monkeypatch):
    """Describe a model with its manifest; return where its files lie."""
    kind = request.param
    if kind == "trained":
        place, source = results / "models" / "small" / "weights", {"train": {"recipe": "toy"}}
    elif kind == "local":
        place, source = tmp_path / "given", {}
    else:
        place = tmp_path / "snapshots" / "c"
        source = {"repo": "a/b", "revision": "c"}
        monkeypatch.setattr(hub, "locate", lambda *_: place)
    place.mkdir(parents=True)
    listed = []
    for name in ("config.json", "model.safetensors"):
        (place / name).write_text(f"content of {name}")
        size, digest = (place / name).stat().st_size, file_digest(place / name)
        listed.append({"name": name, "size": size, "sha256": digest})
    digest = model_folder.digest_of(listed)
    manifest = {**source, "family": "llava", "files": listed, "digest": digest}
    files.write_json(results / "models" / "small" / "manifest.json", manifest)
    return place


def settings(place):
    """Return the settings of a study of that model, which lies in a local folder."""
    model = {"name": "small", "family": "llava", "visual_tokens": 4, "path": str(place)}
    return {
        "title": "x",
        "models": [model],
        "datasets": [{"name": "d", "loader": "digits-pope"}],
        "strategies": ["full"],
        "budgets": [1],
    }


def arguments(results, place, **wishes):
    """Return what verify's command line gives."""
    names = ("repair", "outdated", "record", "other_versions", "log")
    given = dict.fromkeys(names) | {"settings": json.dumps(settings(place))} | wishes
    return Namespace(results=results, command="s", **given)


def unfit(results, place):
    study = load_study(settings(place))
    return [path for _, path, _ in verify.damaged_weights(results, study)]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("place", SOURCES, indirect=True)
def test_weights_are_checked_wherever_they_lie_and_a_repair_has_them_described_anew(
    results, place, name, damage
):
    assert unfit(results, place) == []
    damage(place / name)
    assert unfit(results, place) == [place / name]
    with pytest.raises(
        PrunecalError, match="1 (damaged files: `s repair` removes|files of models .* restore them)"
    ):
        verify.main(arguments(results, place))
    verify.main(arguments(results, place, repair=True))
    model = results / "models" / "small"
    assert not (model / "manifest.json").exists()
    assert not (model / "weights" / "model.safetensors").exists()
    if model not in place.parents and damage != Path.unlink:  # they are the user's
        assert sorted(path.name for path in place.iterdir()) == ["config.json", "model.safetensors"]
    assert unfit(results, place) == []
    assert verify.damaged_files(results) == []


@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_a_file_that_was_added_to_a_model_is_named(results, place):
    (place / "tokenizer.model").write_text("another tokenizer")
    assert unfit(results, place) == [place / "tokenizer.model"]


@pytest.mark.parametrize("place", SOURCES, indirect=True)
def test_weights_that_are_not_on_this_machine_are_not_called_bad(results, place, caplog):
    if results in place.parents:
        pytest.skip("a trained model's weights are results")
    shutil.rmtree(place)
    with caplog.at_level("INFO", logger="prunecal"):
        assert unfit(results, place) == []
    assert "the weights of small are not checked: " in caplog.text


def write_cell(folder, weights, made_from):
    facts = {"model_digest": weights}
    path = folder / "predictions.parquet"
    files.write_table(path, pa.table({"x": [1]}), facts)
    note = {KEY_IN_PROVENANCE: folder.name, lineage.PREDICTIONS: files.recorded(path)}
    files.write_json(folder / "provenance.json", {lineage.MADE_FROM: made_from, **note})


@pytest.mark.parametrize("place", SOURCES, indirect=True)
def test_a_repair_drops_cells_of_bad_weights_out_of_the_store_too(results, place):
    folders = [results / "small" / "d" / "full", results / ".cells" / "ab"]
    digest = json.loads((results / "models" / "small" / "manifest.json").read_text())["digest"]
    for folder in folders:
        write_cell(folder / "1", digest, {})
        write_cell(folder / "2", digest, {lineage.WEIGHTS: digest})  # checked when loaded
        write_cell(folder / "3", "other model", {})
    verify.main(arguments(results, place, repair=True))
    assert (folders[0] / "1" / "predictions.parquet").exists()  # the weights are good
    flip(place / "model.safetensors")
    verify.main(arguments(results, place, repair=True))
    for folder in folders:
        left = {path.parent.name for path in folder.glob("*/*")}
        assert left == {"2", "3"}


def test_files_of_another_study_are_not_said_to_be_made_again_by_this_one(results, tmp_path):
    written = results / "second" / "study.json"
    files.write_json(written, settings(tmp_path) | {"study": "second", "budgets": [2]})
    with files.atomic(written.with_name("summary.html"), [written]) as page:
        page.touch()  # which tells that the study was finished
    with pytest.raises(PrunecalError) as raised:
        verify.main(arguments(results, tmp_path))
    own, _, others = str(raised.value).partition("; ")
    # models, data and cells that both studies have are made again by either
    assert re.fullmatch(r"\d+ damaged files: `s repair` removes them, `s` makes them again", own)
    assert "files of other studies, " in others
    assert "run each with its own --configfile" in others
    shutil.rmtree(results / "second")
    verify.main(arguments(results, tmp_path))


def test_a_file_of_another_program_is_verified_once_it_is_recorded(results):
    path = results / "study.json"
    path.write_text("{}")
    done = run(path, "--record")
    assert (done.returncode, done.stderr) == (0, "")
    assert verify.damaged_files(results) == []
    flip(path)
    assert verify.damaged_files(results) == [path]


def test_only_a_file_can_be_recorded(results):
    done = run(results, "--record")
    assert done.returncode == 1
    assert "is not a file; name one to record its checksum" in done.stderr


def test_results_that_are_not_there_are_named(tmp_path):
    done = run(tmp_path / "resluts")
    assert done.returncode == 1
    assert "resluts is not a folder" in done.stderr
