"""What a killed process left half-written is removed; what is being written is not."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prunecal.storage import files, stale_files

CODE = """
import os, signal, sys
from pathlib import Path
from prunecal.storage import files
with files.atomic(Path(sys.argv[1]) / "m" / "file.json") as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def results(tmp_path):
    results = tmp_path / "results"
    files.write_json(results / "m" / "file.json", {"kept": 1})
    files.write_json(results / ".cells" / "ab" / "cell.json", {"kept": 2})
    (results / ".DS_Store").write_text("another program's")
    return results


@pytest.fixture
def writer(results):
    """A process in the midst of writing a file."""
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, results],
        cwd=Path(files.__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.communicate()


def names(results):
    return sorted(str(path.relative_to(results)) for path in results.rglob("*") if path.is_file())


def test_a_file_that_is_being_written_is_let_be_and_removed_once_its_writer_was_killed(
    results, writer
):
    before = names(results)
    assert sum("file.json." in name and name.endswith(files.PART) for name in before) == 1
    assert stale_files.remove(results) == 0
    assert names(results) == before
    writer.kill()
    writer.wait()
    assert stale_files.remove(results) == 1
    assert names(results) == [name for name in before if not name.endswith(files.PART)]
    assert stale_files.remove(results) == 0


def test_a_writer_whose_neighbour_was_cleaned_up_finishes_its_file(results, writer):
    stale_files.remove(results)
    writer.communicate("")
    assert writer.returncode == 0
    assert (results / "m" / "file.json").read_text() == "half"
    assert files.undamaged(results / "m" / "file.json")


def dead_process():
    """Return the number of a process that has ended."""
    return subprocess.run(
        ["sh", "-c", "echo $$"], capture_output=True, text=True, check=True
    ).stdout


def aged(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


@pytest.mark.parametrize("end", ["", ".checksum"])
def test_of_another_hosts_files_the_old_ones_are_removed(results, end):
    for name, age in (("young", stale_files.OLD - 60), ("old", stale_files.OLD + 60)):
        path = (
            results / f".{name}.json.elsewhere.{dead_process().strip()}.abcd_123{files.PART}{end}"
        )
        path.write_text("half")
        aged(path, age)
    assert [path.name[:4] for path in stale_files.stale_paths(results)] == [".old"]


def test_a_librarys_hidden_files_are_removed_once_they_are_old(results):
    for name, age in ((".tmpAbC123", stale_files.OLD + 60), (".tmpAbC124", 0)):
        (results / name).write_text("half")
        aged(results / name, age)
    assert stale_files.stale_paths(results) == [results / ".tmpAbC123"]


@pytest.mark.parametrize(
    "name", ["file.part", ".file.json.sha256", ".x.part", ".file.json.host.12.short.part"]
)
def test_other_names_are_never_touched(results, name):
    (results / name).write_text("a user's")
    aged(results / name, 10 * stale_files.OLD)
    assert stale_files.stale_paths(results) == []


KILLED = """
import os, sys
from pathlib import Path
from prunecal import recipes
from prunecal.sources import weights as model
from prunecal.core.parameters import Parameters
class Params(Parameters): pass
def train(params, folder):
    (folder / "a").write_text("half")
    os._exit(9)
model.plugins.load = lambda *_: sys.modules["__main__"]
model.obtain({"train": {"recipe": "killed"}}, Path(sys.argv[1]) / "models" / "n" / "weights")
"""


def test_a_half_trained_model_is_removed_whole(results):
    workflow = Path(files.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", KILLED, results], cwd=workflow, check=False)
    assert done.returncode == 9
    assert any(path.endswith("/model/a") for path in names(results))
    assert stale_files.remove(results) == 1
    assert list((results / "models" / "n").iterdir()) == []


def test_prune_says_how_many_it_removed(results, writer):
    writer.kill()
    writer.wait()
    command = [sys.executable, "-m", "prunecal.prune", "--results", results]
    done = subprocess.run(
        [*command, "--store", results / ".cells"],
        cwd=Path(files.__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == (
        "kept 0 rankings, removed 0\nkept 0 cells, removed 0 and 1 half-written file\n"
    )
