"""A fault of the disk is one sentence with the file's name, whichever library met it."""

import errno
import os
import sys

import numpy as np
import pyarrow as pa
import pytest

from helpers.full_disk import full_disk
from prunecal import model, recipes
from prunecal.core import disk_errors
from prunecal.storage import files
from prunecal.storage.arrays import write_arrays

FULL = OSError(errno.ENOSPC, "No space left on device")


def linked(error, **links):
    """Return an exception with what Python notes when it is raised from, or beside, another."""
    for name, value in links.items():
        setattr(error, f"__{name}__", value)
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FULL, errno.ENOSPC),
        (PermissionError(errno.EACCES, "no", "x"), errno.EACCES),
        (OSError(errno.EIO, "broken"), errno.EIO),
        (linked(RuntimeError("lib"), cause=OSError(errno.EROFS, "ro")), errno.EROFS),
        (linked(ValueError("lib"), context=OSError(errno.EDQUOT, "quota")), errno.EDQUOT),
        (Exception("I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (FileNotFoundError(errno.ENOENT, "gone", "x"), None),
        (Exception("(os error 2)"), None),
        (linked(KeyError("own"), context=FULL, suppress_context=True), None),
        (OSError("without a number"), None),
        (linked(RuntimeError("no connection"), cause=PermissionError(errno.EPERM, "no")), None),
    ],
)
def test_a_fault_is_found_behind_other_exceptions(error, code):
    found = disk_errors.fault(error)
    assert (found and found.errno) == code


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "", "a/b"), "a/b cannot be written (No space left on device); free"),
        (OSError(errno.EROFS, "", b"a"), "a cannot be written (Read-only file system); free some"),
        (OSError(errno.EACCES, "", "a"), "a cannot be used (Permission denied); grant yourself"),
        (OSError(errno.EIO, "", "a"), "a cannot be used (Input/output error); check the disk"),
        (FULL, "a file cannot be written (No space left on device); free some space or grant"),
    ],
)
def test_a_fault_is_told_with_the_files_name_and_a_remedy(error, message):
    assert disk_errors.told(error).startswith(message)


@pytest.mark.parametrize("code", [*disk_errors.FULL, *disk_errors.FORBIDDEN, *disk_errors.BROKEN])
def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path, code):
    def fail():
        with files.atomic(tmp_path / "table.csv") as temporary:
            temporary.write_text("half")
            raise OSError(code, os.strerror(code), str(temporary))

    with pytest.raises(
        disk_errors.CannotWriteError, match=r"table.csv cannot be written \("
    ) as caught:
        fail()
    assert ".part" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_read_meanwhile_keeps_its_own_name(tmp_path):
    def fail():
        with files.atomic(tmp_path / "here" / "table.csv"):
            raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "there" / "x"))

    with pytest.raises(PermissionError):
        fail()


WRITERS = {
    "parquet": lambda path: files.write_table(path, pa.table({"a": np.arange(99999)}), {}),
    "safetensors": lambda path: write_arrays(path, {"a": np.zeros(99999)}, {}),
    "json": lambda path: files.write_json(path, ["x"] * 99999),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_a_file_too_large_for_the_disk_is_named_whatever_writes_it(tmp_path, write):
    with (
        full_disk(65536),
        pytest.raises(
            disk_errors.CannotWriteError, match="result cannot be written .File too large"
        ),
    ):
        write(tmp_path / "result")
    assert list(tmp_path.iterdir()) == []


RECIPE = """
from prunecal.core.parameters import Parameters
from safetensors import SafetensorError
LABEL = "Spoiled"
class Params(Parameters):
    error: str
def train(params, folder):
    (folder / "config.json").write_text("{}")
    if params.error == "words":
        raise SafetensorError("Error while serializing: I/O error: disk quota (os error 122)")
    raise PermissionError(13, "Permission denied", "/elsewhere/scans")
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "spoiled.py").write_text(RECIPE)
    monkeypatch.setattr(recipes, "__path__", [*recipes.__path__, str(tmp_path / "recipes")])
    yield
    sys.modules.pop("prunecal.recipes.spoiled", None)


@pytest.mark.usefixtures("recipe")
def test_a_disk_that_is_full_at_the_end_of_training_is_told_by_the_weights_folder(tmp_path):
    source = {"train": {"recipe": "spoiled", "error": "words"}}
    with pytest.raises(
        disk_errors.CannotWriteError, match=r"m/weights cannot be written \(Disk quota"
    ):
        model.obtain(source, tmp_path / "m" / "weights")
    assert list((tmp_path / "m").iterdir()) == []


@pytest.mark.usefixtures("recipe")
def test_what_training_cannot_read_is_not_told_of_the_weights_folder(tmp_path):
    source = {"train": {"recipe": "spoiled", "error": "elsewhere"}}
    with pytest.raises(PermissionError, match="/elsewhere/scans"):
        model.obtain(source, tmp_path / "m" / "weights")
