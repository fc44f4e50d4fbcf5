"""The Python that rules run in Snakemake's own process."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import job_environment
import long_arguments
import pytest
import run_lock

from prunecal.core import cli


def run(prefix, folder, environment):
    """Run a command after the prefix, as Snakemake does, and return the words that it prints."""
    command = prefix.format() + 'printf "%s\\n" "$PATH" "$PYTHONPATH" "$PYTHONSAFEPATH"'
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", ["code", "o'brien", "$HOME `x`", 'q"uote', "ü *"])
def test_any_path_passes_the_shell_and_snakemakes_formatting(tmp_path, name):
    python = f"{name}{{a}}"
    said = run(job_environment.prefix(name, python), tmp_path, {"PATH": os.environ["PATH"]})
    assert said == [f"{python}:{os.environ['PATH']}", name, "1"]


def test_the_users_own_python_path_comes_after_the_checkouts(tmp_path):
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": "/mine:/other"}
    assert run(job_environment.prefix("workflow", "/bin"), tmp_path, environment)[1:] == [
        "workflow:/mine:/other",
        "1",
    ]


def test_a_container_keeps_its_own_python(tmp_path):
    said = run(job_environment.prefix("workflow", None), tmp_path, {"PATH": os.environ["PATH"]})
    assert said[0] == os.environ["PATH"]


@pytest.mark.parametrize("name", ["a:b", "a{b}"])
def test_a_path_that_python_or_snakemake_would_misread_is_refused(name):
    with pytest.raises(ValueError, match=f"jobs cannot use the code in '../{name}/workflow'"):
        job_environment.prefix(f"../{name}/workflow", None)


def test_a_folder_is_locked_against_other_processes_until_its_holder_ends(tmp_path):
    folder = tmp_path / "results"
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import run_lock;"
        "run_lock.lock(Path(sys.argv[2])); print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, Path(run_lock.__file__).parent, folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout.readline() == "locked\n"
        with pytest.raises(BlockingIOError):
            run_lock.lock(folder)
        one.kill()
    assert run_lock.lock(folder)


def test_a_folder_that_cannot_be_made_is_left_to_the_jobs(tmp_path):
    (tmp_path / "file").touch()
    assert not run_lock.lock(tmp_path / "file" / "results")


def test_arguments_too_long_for_a_command_reach_the_stage_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few, many = ["a b", "it's"], [f"results/ü/{number}/{'x' * 40}" for number in range(5000)]
    for given in (few, many, [json.dumps(many)]):
        words = long_arguments.words(given)
        command = shlex.split(words)
        assert len(words) < 131_072  # a word of a command on Linux
        parsed = cli.parser("", "--predictions").parse_args(["--predictions", *command])
        assert list(map(str, parsed.predictions)) == given
    assert long_arguments.words(few) == "'a b' 'it'\"'\"'s'"
    for text in ("{ 'a': 1 }\n%s", "x\n" * 70_000):
        command = ["bash", "-c", long_arguments.printing(text)]
        assert subprocess.run(command, capture_output=True, text=True).stdout == f"{text}\n"
