import importlib.util
import re
import tomllib

import pytest
import yaml

from helpers import pages, synthetic_results

ROOT = pages.ROOT
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
PYTHON = [block for block in pages.blocks(README) if block.language == "python"]


@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_the_readme_s_examples_run_on_the_results_of_a_study(block, tmp_path):
    synthetic_results.write(tmp_path)
    (tmp_path / "workflow").symlink_to(ROOT / "workflow")
    assert pages.run(block, tmp_path).strip()


def test_one_command_runs_the_study_and_one_the_tests_each_with_its_own_set_up():
    commands = [line for line in TEXT.splitlines() if line.startswith("python3 -m venv .venv")]
    study, tests = commands
    assert study.endswith(".venv/bin/snakemake --cores all")
    assert re.search(r"\.venv/bin/pytest\S*$|\.venv/bin/pytest ", tests)


def test_every_target_in_the_table_of_commands_is_a_rule():
    rules = "".join(path.read_text() for path in [ROOT / "Snakefile", *ROOT.glob("rules/*.smk")])
    defined = set(re.findall(r"^rule (\w+):", rules, re.MULTILINE))
    table = re.findall(r"^\| `snakemake ([^`]+)`", TEXT, re.MULTILINE)
    assert len(table) > 5
    for command in table:
        words = re.sub(r"--(cores|config|resources|configfile) \S+", "", command).split()
        assert {word for word in words if not word.startswith("-")} <= defined, command


def test_the_graph_of_rules_is_that_of_the_embedded_study():
    script = ROOT / "docs" / "pictures" / "rulegraph.py"
    spec = importlib.util.spec_from_file_location("rulegraph", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    [drawn] = re.findall(r"```mermaid\n(.*?)\n```", TEXT, re.DOTALL)
    assert drawn == module.graph(), "put the output of docs/pictures/rulegraph.py into the README"


def test_the_citation_has_the_project_s_version_and_both_versions_of_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    papers = {paper["version"]: paper for paper in citation["references"]}
    assert {version: len(paper["authors"]) for version, paper in papers.items()} == {
        "v1": 1,
        "v2": 6,
    }


def test_what_the_documentation_needs_is_pinned():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    pins = (ROOT / "envs" / "requirements-docs.txt").read_text()
    for requirement in extras["docs"]:
        assert re.match(r"[\w-]+", requirement)[0] + "==" in pins
