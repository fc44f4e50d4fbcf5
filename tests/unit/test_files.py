import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from prunecal.core import versions
from prunecal.core.errors import RERUN, PrunecalError
from prunecal.storage import files
from prunecal.storage.arrays import open_arrays, write_arrays, write_tensors

TABLE = pa.table({"a": [1, 2, 3], "b": [[1.5], [], [2.5, 3.5]]})
FACTS = {"z": {"b": 1, "a": [None, "ü\n\x07"]}, "alpha": 0.5, "seed": None, "ids": ["x", "y"]}


@pytest.fixture(params=[0o002, 0o022, 0o077], ids=oct)
def umask(request):
    """Run as a user with some umask."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_files_and_folders_follow_the_umask(tmp_path, umask):
    folder = tmp_path / "new"
    files.write_json(folder / "a.json", 1)
    files.write_table(folder / "b.parquet", TABLE, {})
    write_arrays(folder / "c.safetensors", {"x": np.ones(3)}, {})
    files.write_json(folder / "a.json", 2)  # replaced
    (folder / "d.csv").write_text("1")
    files.record(folder / "d.csv")
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert len(modes) == 8  # each with its checksum
    assert modes == dict.fromkeys(modes, 0o666 & ~umask)
    assert folder.stat().st_mode & 0o777 == 0o777 & ~umask


def test_a_file_takes_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    with files.atomic(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.parent == path.parent  # the same file system, so that renaming is atomic
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert sorted(one.name for one in path.parent.iterdir()) == [".file.txt.sha256", "file.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_raises_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "file.txt"

    def fail():
        with files.atomic(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []
    with files.atomic(path) as temporary:
        temporary.write_text("whole")
    with pytest.raises(error):
        fail()
    assert path.read_text() == "whole"
    assert files.undamaged(path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_killed_process_leaves_nothing_under_the_final_name(tmp_path):
    path = tmp_path / "file.txt"
    code = (
        "import os, signal, sys\n"
        "from prunecal.storage import files\n"
        "with files.atomic(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = fresh(code, path, check=False)
    assert done.returncode == -9
    assert not path.exists()
    assert not files.checksum_file(path).exists()


def test_sha256sum_reads_the_checksums(tmp_path):
    path = tmp_path / "file with spaces.txt"
    files.write_json(path, {"a": 1})
    command = ["sha256sum", "--check", "--strict", files.checksum_file(path).name]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def test_damage_of_the_file_or_of_its_checksum_is_seen(tmp_path):
    path = tmp_path / "file.json"
    files.write_json(path, {"a": 1})
    checksum = files.checksum_file(path).read_bytes()
    assert files.undamaged(path)
    for damaged in (b"", b"\xff\xfe", checksum[1:]):
        files.checksum_file(path).write_bytes(damaged)
        assert not files.undamaged(path)
    files.checksum_file(path).unlink()
    assert not files.undamaged(path)
    files.checksum_file(path).write_bytes(checksum)
    assert files.undamaged(path)
    path.write_text(path.read_text().replace("1", "2"))
    assert not files.undamaged(path)
    path.unlink()
    assert not files.undamaged(path)


WRITE_ALL = """
import sys
from pathlib import Path
import numpy as np, pyarrow as pa
from prunecal.storage import files
from prunecal.storage.arrays import write_arrays
folder = Path(sys.argv[1])
facts = {"z": {"b": 1, "a": [None, "ü"]}, "alpha": 0.5, "seed": None, "ids": ["x", "y"]}
facts |= {f"fact{at}": at for at in range(20)}
if sys.argv[2] == "reversed":
    facts = dict(reversed(facts.items()))
table = pa.table({"a": [1, 2, 3], "b": [[1.5], [], [2.5, 3.5]]})
files.write_table(folder / "table.parquet", table, facts)
write_arrays(folder / "arrays.safetensors", {"x": np.arange(6).reshape(2, 3)}, facts)
files.write_json(folder / "facts.json", {"title": "ü", "n": [1, 2]})
"""


def fresh(code, *arguments, check=True):
    """Run code in a fresh process, whose hashes of strings differ from those of any other."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=Path(files.__file__).parents[2],
        check=check,
        capture_output=True,
        text=True,
    )


def test_the_same_content_is_the_same_bytes_in_fresh_processes(tmp_path):
    for folder, order in (("one", "given"), ("two", "reversed")):
        (tmp_path / folder).mkdir()
        fresh(WRITE_ALL, tmp_path / folder, order)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) == 6
    for name in names:
        one, two = (tmp_path / folder / name for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes(), name


@pytest.mark.parametrize("facts", [FACTS, {}])
def test_arrays_and_facts_come_back_whatever_their_layout(tmp_path, facts):
    grid = np.arange(12, dtype=np.int16).reshape(3, 4)
    arrays = {"grid": grid, "turned": grid.T, "cut": grid[:, 1:3], "one": np.float32(1.5)}
    write_arrays(tmp_path / "arrays", arrays, facts)
    file = open_arrays(tmp_path / "arrays")
    assert file.facts == facts
    for name, values in arrays.items():
        found = file.get_tensor(name)
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)


def test_the_metadata_of_safetensors_stand_in_order(tmp_path):
    facts = {f"key{at}": at for at in reversed(range(30))}
    write_tensors(tmp_path / "tensors", {"x": torch.ones(2)}, facts)
    content = (tmp_path / "tensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert list(header["__metadata__"]) == sorted(facts)


def test_half_precision_tensors_come_back(tmp_path):
    tensor = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    write_tensors(tmp_path / "tensors", {"x": tensor}, FACTS)
    assert torch.equal(open_arrays(tmp_path / "tensors", "pt").get_tensor("x"), tensor)


def test_tables_and_facts_come_back(tmp_path):
    path = tmp_path / "table.parquet"
    files.write_table(path, TABLE.replace_schema_metadata({"other": "x"}), FACTS)
    assert files.read_table(path).equals(TABLE)
    assert files.read_table(path, ["b"]).column_names == ["b"]
    assert files.read_facts(path) == FACTS


def test_a_missing_column_is_named(tmp_path):
    files.write_table(tmp_path / "t", TABLE, {})
    with pytest.raises(
        PrunecalError, match="t lacks the column 'c'; delete it and run snakemake again"
    ):
        files.read_table(tmp_path / "t", ["a", "c"])


READERS = {
    "parquet": files.read_table,
    "parquet facts": files.read_facts,
    "safetensors": open_arrays,
    "JSON": files.read_json,
}


@pytest.mark.parametrize("content", [None, b"", b"PAR1", b"\xff" * 100, b"{"])
@pytest.mark.parametrize("kind", READERS)
def test_a_damaged_or_missing_file_is_named(tmp_path, kind, content):
    path = tmp_path / "results.file"
    if content is not None:
        path.write_bytes(content)
    message = rf"results.file cannot be read as {kind.split()[0]} \(.*\); {RERUN}"
    if content is None:
        message = "results.file is missing; run `snakemake --cores all` to make it, and run this in"
    with pytest.raises(PrunecalError, match=f"(?s){message}"):
        READERS[kind](path)


@pytest.mark.parametrize("kind", ["parquet", "safetensors"])
def test_a_truncated_file_is_named(tmp_path, kind):
    path = tmp_path / "file"
    if kind == "parquet":
        files.write_table(path, TABLE, FACTS)
    else:
        write_arrays(path, {"x": np.arange(100)}, FACTS)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(PrunecalError, match=f"file cannot be read as {kind}"):
        READERS[kind](path)


def test_a_table_of_another_program_has_no_facts(tmp_path):
    import pyarrow.parquet as pq

    pq.write_table(TABLE, tmp_path / "t")
    with pytest.raises(
        PrunecalError, match="has no prunecal metadata; delete it and run snakemake again"
    ):
        files.read_facts(tmp_path / "t")


def test_json_takes_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_equal_values_have_one_canonical_json():
    assert files.canonical_json({"b": [1, {"d": 1, "c": "ü"}], "a": 1}) == (
        '{"a":1,"b":[1,{"c":"ü","d":1}]}'
    )


def test_provenance_names_versions_and_what_the_caller_adds():
    found = files.provenance(device="cpu", seconds=1.5)
    assert found["versions"]["torch"] == torch.__version__
    assert found["versions"]["numpy"] == np.__version__
    assert (found["device"], found["seconds"]) == ("cpu", 1.5)
    json.dumps(found)


def test_versions_name_the_build_of_torch_that_runs_whatever_its_wheel_is_called(
    tmp_path, monkeypatch
):
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "version.py").write_text("__all__ = ['x']\n__version__ = '2.13.0+cu130'\n")
    spec = importlib.util.spec_from_file_location("torch", package / "__init__.py")
    monkeypatch.setattr(versions, "find_spec", lambda _: spec)
    assert versions.installed("torch") == "2.13.0+cu130"
    assert versions.installed("numpy") == np.__version__


@pytest.mark.parametrize("name", ["log_normaliser", "top_token"])
def test_what_another_program_did_not_record_is_null_in_all_rows(tmp_path, name):
    path = tmp_path / "predictions.parquet"
    kind = pa.float32() if name == "log_normaliser" else pa.int32()
    for nothing in (pa.array([None, None], kind), pa.nulls(2)):
        files.write_table(path, pa.table({name: nothing}), {})
        assert files.read_table(path, [name])[name].null_count == 2
    files.write_table(path, pa.table({name: pa.array([1, None], kind)}), {})
    with pytest.raises(PrunecalError, match=f"rows without a value in its column '{name}'"):
        files.read_table(path)
