import importlib.util
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def recipes():
    spec = importlib.util.spec_from_file_location("recipes", ROOT / "envs" / "recipes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pinned(name):
    lines = (ROOT / "envs" / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def test_conda_and_apptainer_recipes_are_made_from_the_pins():
    made = recipes()
    assert (ROOT / "envs" / "conda.yaml").read_text() == made.conda()
    assert (ROOT / "envs" / "apptainer.def").read_text() == made.apptainer()


def test_every_dependency_is_pinned():
    run, test = pinned("requirements.txt"), pinned("requirements-test.txt")
    for line in PROJECT["dependencies"]:
        assert re.match(r"[\w-]+", line)[0] in run
    for line in PROJECT["optional-dependencies"]["test"]:
        assert re.match(r"[\w-]+", line)[0] in run | test


def test_torch_is_pinned_to_one_version_everywhere():
    assert "torch==2.13.0" in PROJECT["dependencies"]
    assert pinned("requirements.txt")["torch"] == "2.13.0"


def test_recipes_name_no_local_build():
    for name in ("requirements.txt", "requirements-test.txt", "conda.yaml", "apptainer.def"):
        assert "+cpu" not in (ROOT / "envs" / name).read_text()
