import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from prunecal import verify
from prunecal.storage import files
from prunecal.storage.checksums import file_digest


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


DAMAGES = {"flipped": flip, "truncated": truncate, "missing": Path.unlink}


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
    assert f"2 damaged files below {results}; `snakemake repair` removes them" in done.stderr
    assert (results / "model" / "data" / "file1.json").exists()

    done = run(results, "--repair")
    assert done.returncode == 0, done.stderr
    assert "removed 2 files" in done.stderr
    left = sorted(path.name for path in (results / "model" / "data").iterdir())
    assert left == [".file0.json.sha256", "file0.json"]
    assert (results / "not-ours.txt").exists()
    assert verify.damaged_files(results) == []


@pytest.fixture
def model(results):
    """Write a trained model with its manifest."""
    folder = results / "models" / "small"
    (folder / "weights").mkdir(parents=True)
    listed = []
    for name in ("config.json", "model.safetensors"):
        (folder / "weights" / name).write_text(f"content of {name}")
        digest = file_digest(folder / "weights" / name)
        listed.append({"name": name, "size": 1, "sha256": digest})
    files.write_json(folder / "manifest.json", {"train": {"recipe": "toy"}, "files": listed})
    return folder


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damaged_weights_are_found_by_their_manifest_and_the_model_is_made_again(
    results, model, name, damage
):
    assert verify.damaged_files(results) == []
    damage(model / "weights" / name)
    assert verify.damaged_files(results) == [model / "weights" / name]
    verify.main(Namespace(results=results, repair=True, record=False, other_versions=False))
    assert not (model / "manifest.json").exists()
    assert not (model / "weights" / "model.safetensors").exists()
    assert verify.damaged_files(results) == []


def test_a_downloaded_models_files_lie_elsewhere(results):
    listed = [{"name": "model.safetensors", "size": 1, "sha256": "0" * 64}]
    manifest = {"repo": "a/b", "revision": "c", "files": listed}
    files.write_json(results / "models" / "large" / "manifest.json", manifest)
    assert verify.damaged_files(results) == []


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
    assert "is no file, so it has no checksum to record" in done.stderr


def test_results_that_are_not_there_are_named(tmp_path):
    done = run(tmp_path / "resluts")
    assert done.returncode == 1
    assert "resluts is not a folder" in done.stderr
