import importlib.util
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


def lines_of(extra):
    """List what an extra asks for, without the project itself."""
    lines = map(Requirement, PROJECT["optional-dependencies"][extra])
    return [line for line in lines if line.name != PROJECT["name"]]


def test_every_dependency_is_pinned_to_a_version_that_it_allows():
    run, test, docs = (pinned(f"requirements{kind}.txt") for kind in ("", "-test", "-docs"))
    needs = [(map(Requirement, PROJECT["dependencies"]), run)]
    needs += [(lines_of(extra), run) for extra in ("quantization", "slurm")]
    needs += [(lines_of(extra), run | test) for extra in ("test", "dev")]
    needs += [(lines_of("docs"), run | test | docs)]
    for lines, pins in needs:
        for line in lines:
            assert line.specifier.contains(pins[canonicalize_name(line.name)]), str(line)


def test_no_version_is_pinned_twice():
    files = sorted((ROOT / "envs").glob("requirements*.txt"))
    names = [name for file in files for name in pinned(file.name)]
    assert len(names) > 100
    assert len(names) == len(set(names))


def test_recipes_name_no_local_build():
    for path in (ROOT / "envs").glob("[!_.]*.*"):
        assert path.suffix == ".py" or "+cpu" not in path.read_text()
