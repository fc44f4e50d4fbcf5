import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prunecal.caching.cell_store import (
    FILES,
    KEY_IN_PROVENANCE,
    PREDICTIONS,
    CellStore,
    cell_key,
    misplaced_cells,
    prune,
)
from prunecal.core.errors import PrunecalError
from prunecal.storage import files

KEY = cell_key({"cell": 1})
OTHER = cell_key({"cell": 2})


@pytest.fixture
def cells(tmp_path):
    return CellStore(tmp_path / "results" / ".cells")


def fill(cells, key, content="answers"):
    folder = cells.folder(key)
    with files.atomic(folder / "predictions.parquet") as temporary:
        temporary.write_text(content)
    recorded = files.recorded(folder / "predictions.parquet")
    files.write_json(folder / "provenance.json", {KEY_IN_PROVENANCE: key, PREDICTIONS: recorded})


def test_a_key_depends_on_the_facts_and_not_on_their_order():
    assert cell_key({"a": 1, "b": {"c": 2, "d": 3}}) == cell_key({"b": {"d": 3, "c": 2}, "a": 1})
    assert len({cell_key({"a": value}) for value in (1, 2, "1", None, [1])}) == 5


def test_a_cell_is_there_once_all_its_files_are(cells):
    assert not cells.has(KEY)
    with files.atomic(cells.folder(KEY) / "predictions.parquet") as temporary:
        temporary.write_text("answers")
    assert not cells.has(KEY)
    fill(cells, KEY)
    assert cells.has(KEY)
    assert not cells.has(OTHER)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_cell_is_removed_with_a_warning(cells, name, caplog):
    fill(cells, KEY)
    (cells.folder(KEY) / name).write_text("altered")
    with caplog.at_level("WARNING", logger="prunecal"):
        assert not cells.has(KEY)
    assert f"{name} is damaged; it is computed again" in caplog.text
    assert not cells.folder(KEY).exists()
    fill(cells, KEY)
    assert cells.has(KEY)


@pytest.mark.parametrize("names", [FILES, FILES[:1]])
def test_a_whole_cell_under_the_key_of_another_is_not_taken_for_it(cells, names, caplog):
    fill(cells, KEY)
    fill(cells, OTHER, "other answers")
    for name in names:
        for path in (cells.folder(KEY) / name, files.checksum_file(cells.folder(KEY) / name)):
            shutil.copy2(path, cells.folder(OTHER) / path.name)
    assert misplaced_cells(cells.root) == [cells.folder(OTHER) / "predictions.parquet"]
    assert not cells.has(OTHER)
    assert "is damaged; it is computed again" in caplog.text
    assert cells.has(KEY)
    assert misplaced_cells(cells.root) == []


def test_handed_out_files_are_whole_copies_with_checksums(cells, tmp_path):
    fill(cells, KEY)
    destination = tmp_path / "results" / "m" / "d" / "s" / "5"
    cells.hand_out(KEY, destination)
    for name in FILES:
        assert (destination / name).read_bytes() == (cells.folder(KEY) / name).read_bytes()
        assert files.undamaged(destination / name)


def test_a_target_with_the_same_content_is_not_written_again(cells, tmp_path):
    fill(cells, KEY)
    cells.hand_out(KEY, tmp_path / "5")
    for name in FILES:
        os.utime(tmp_path / "5" / name, (1, 1))
    cells.hand_out(KEY, tmp_path / "5")
    assert {(tmp_path / "5" / name).stat().st_mtime for name in FILES} == {1}


def test_a_target_that_differs_or_lost_its_checksum_is_written_again(cells, tmp_path):
    fill(cells, KEY)
    cells.hand_out(KEY, tmp_path / "5")
    target = tmp_path / "5" / "predictions.parquet"
    target.write_text("altered")
    cells.hand_out(KEY, tmp_path / "5")
    assert target.read_text() == "answers"
    files.checksum_file(target).unlink()
    cells.hand_out(KEY, tmp_path / "5")
    assert files.undamaged(target)


def test_pruning_keeps_the_cells_that_results_use(cells, tmp_path):
    results = tmp_path / "results"
    fill(cells, KEY)
    fill(cells, OTHER, "older answers")
    cells.hand_out(KEY, results / "model" / "dataset" / "scope" / "5")
    cells.hand_out(KEY, results / "model" / "again" / "scope" / "5")
    assert prune(cells.root, results) == (1, 1)
    assert cells.has(KEY)
    assert not cells.has(OTHER)
    assert prune(cells.root, results) == (1, 0)


def test_pruning_removes_nothing_if_a_result_does_not_name_its_cell(cells, tmp_path):
    results = tmp_path / "results"
    fill(cells, KEY)
    files.write_json(results / "m" / "d" / "s" / "5" / "provenance.json", {"versions": {}})
    with pytest.raises(
        PrunecalError, match="lacks 'cell_key', so unused cells cannot be told; delete"
    ):
        prune(cells.root, results)
    assert cells.has(KEY)


def test_the_prune_command_says_what_it_did(cells, tmp_path):
    results = tmp_path / "results"
    fill(cells, KEY)
    fill(cells, OTHER)
    cells.hand_out(OTHER, results / "model" / "dataset" / "scope" / "5")
    done = subprocess.run(
        [sys.executable, "-m", "prunecal.prune", "--store", cells.root, "--results", results],
        cwd=Path(files.__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == (
        "kept 0 rankings, removed 0\nkept 1 cell, removed 1 and 0 half-written files\n"
    )
    assert cells.has(OTHER)
    assert not cells.has(KEY)
