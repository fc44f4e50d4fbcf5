"""Local paths of settings as inputs of rules."""

import pytest

from prunecal.core.errors import PrunecalError
from prunecal.study import local_files
from prunecal.study.data_settings import Dataset


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    return str(path)


def test_folders_are_expanded_and_hidden_files_left_out(tmp_path):
    kept = [write(tmp_path / name) for name in ("b.json", "a/1.png", "a/c/2.png", "set[1]/*.txt")]
    for name in (".hidden", "a/.cache/x", ".git/config"):
        write(tmp_path / name)
    assert sorted(local_files.local_files([tmp_path])) == sorted(kept)


def test_a_hidden_folder_that_is_named_itself_is_expanded(tmp_path):
    file = write(tmp_path / ".data" / "a.json")
    assert local_files.local_files([tmp_path / ".data"]) == [file]


def test_a_missing_path_is_left_to_the_stage(tmp_path):
    assert local_files.local_files([tmp_path / "gone"]) == []


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "\ud800"])
def test_a_path_that_no_file_system_takes_is_named(tmp_path, name):
    with pytest.raises(PrunecalError, match="the path .* is impossible .*; correct it"):
        local_files.local_files([tmp_path / name])


@pytest.mark.parametrize("name", ["with{brace}", "{", "}x", "{{a}}"])
def test_braces_are_refused_in_a_sentence(tmp_path, name):
    file = write(tmp_path / name / "a.json")
    with pytest.raises(PrunecalError, match="holds braces, which Snakemake takes for a wildcard"):
        local_files.local_files([tmp_path])
    with pytest.raises(PrunecalError, match="rename it"):
        local_files.local_files([file])


def test_a_folder_with_more_files_than_any_data_set_is_refused(tmp_path, monkeypatch):
    for number in range(4):
        write(tmp_path / "many" / f"{number}.png")
    monkeypatch.setattr(local_files, "MOST_FILES", 3)
    with pytest.raises(PrunecalError, match="holds more than 3 files; give the folder"):
        local_files.local_files([tmp_path])


def test_the_paths_of_a_data_set_are_those_of_its_settings():
    settings = {"name": "pope", "loader": "pope", "questions": ["a.json", "b.json"], "images": "i"}
    dataset = Dataset.model_validate(settings)
    assert sorted(map(str, local_files.named_paths(dataset))) == ["a.json", "b.json", "i"]
    hub = {"name": "pope", "loader": "pope", "repo": "a/b", "revision": "0" * 40}
    assert local_files.named_paths(Dataset.model_validate(hub)) == []


@pytest.mark.parametrize("path", ["/", "/proc", "/sys/kernel", "/usr/..", "link"])
def test_folders_of_the_operating_system_are_refused_unread(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("/proc/self")
    with pytest.raises(PrunecalError, match="leads to a folder of the operating system"):
        local_files.local_files([path])
