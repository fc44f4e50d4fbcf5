"""Which Python and which code the jobs of a checkout run, and where it may lie."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.small_project import Project

DATA = "results/datasets/polls/questions.parquet"
LOG = "logs/data/polls.log"
MARK = "own code: "
# of Apptainer: `apptainer exec --home FOLDER [options] IMAGE SHELL -c COMMAND`
APPTAINER = """#!/bin/bash
if [ "$1" = --version ]; then echo "apptainer version 1.3.6"; exit; fi
echo "$@" > {folder}/called
export PATH={folder}/image:/usr/bin:/bin
while [ "$1" != -c ]; do shift; done
exec bash -c "$2"
"""
PYTHON = """#!/bin/sh
echo "$PYTHONPATH" >> {folder}/ran
exec {python} "$@"
"""


def script(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def project(tmp_path):
    return marked(tmp_path / "study")


def marked(folder):
    """Return a project whose data stage shows in its log that it is this project's."""
    project = Project.create(folder)
    project.edit("data.py", '"%s: %d questions', f'"{MARK}%s: %d questions')
    return project


def made_by_own_code(project):
    return MARK in (project.folder / LOG).read_text()


@pytest.fixture
def container(tmp_path):
    """Put a stand-in for Apptainer, and for the Python of an image, into a folder."""
    script(tmp_path / "bin" / "apptainer", APPTAINER.format(folder=tmp_path))
    python = PYTHON.format(folder=tmp_path, python=sys.executable)
    script(tmp_path / "image" / "python", python)
    return tmp_path


def test_jobs_in_a_container_run_its_python_and_this_checkouts_code(project, container):
    path = f"{container / 'bin'}{os.pathsep}{os.environ['PATH']}"
    project.run(DATA, "--sdm", "apptainer", environment={"PATH": path})
    assert "envs/prunecal.sif" in (container / "called").read_text()
    assert (container / "ran").read_text().split(":")[0].strip() == "workflow"
    assert made_by_own_code(project)


def test_the_container_is_one_statement_that_the_recipe_builds(project):
    recipe = (project.folder / "envs" / "apptainer.def").read_text()
    assert "apptainer build envs/prunecal.sif envs/apptainer.def" in recipe
    rules = [project.folder / "Snakefile", *(project.folder / "rules").glob("*.smk")]
    statements = [
        line
        for path in rules
        for line in path.read_text().splitlines()
        if line.lstrip().startswith(("container:", "conda:"))
    ]
    assert len(statements) == 1


@pytest.mark.parametrize("safe_path", ["", "1"])
def test_jobs_run_snakemakes_python_and_own_code_whatever_the_paths_say(
    project, container, tmp_path, safe_path
):
    other = tmp_path / "other" / "prunecal"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise SystemExit('the other prunecal')\n")
    shutil.copytree(other, project.folder / "prunecal")  # python -m would look here first
    environment = {
        "PATH": f"{container / 'image'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(other.parent),
        "PYTHONSAFEPATH": safe_path,
    }
    command = [Path(sys.executable).with_name("snakemake"), DATA, "--configfile", "small.yaml"]
    done = subprocess.run(
        [*command, "--cores", "1"],
        cwd=project.folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert made_by_own_code(project)
    assert not (container / "ran").exists()


def test_a_checkout_may_lie_at_any_path(tmp_path):
    project = marked(tmp_path / "o'brien {brace} a:b set[1] *? $HOME q\"u")
    project.run(DATA)
    assert made_by_own_code(project)


def test_a_checkout_that_python_cannot_find_from_elsewhere_is_refused(tmp_path):
    project = marked(tmp_path / "a:b")
    said = project.run(DATA, "--directory", str(tmp_path / "out"), fails=True)
    assert "jobs cannot use the code in '../a:b/workflow', because its path holds ':'" in said
    assert "Traceback" not in said
