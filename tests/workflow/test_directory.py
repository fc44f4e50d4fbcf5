"""Results in another folder than the checkout, and in one that clones share."""

import json
import shutil

import pytest
import run_lock
import yaml

from helpers.small_project import Project


@pytest.fixture
def elsewhere(project, tmp_path):
    """Return a folder with a finished study's results, but none of the project's files."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for part in ("results", "logs", ".snakemake"):
        shutil.copytree(project.folder / part, folder / part, copy_function=shutil.copy2)
    shutil.copytree(project.folder / "reports", folder / "reports",
                    ignore=lambda _, names: [name for name in names if name != "report.html"],
                    copy_function=shutil.copy2)  # fmt: skip
    return folder


def test_another_folder_holds_the_whole_study_by_the_settings_of_the_checkout(project, tmp_path):
    """A study says only what differs from config.yaml, which lies beside the Snakefile."""
    folder = tmp_path / "new"
    few = {"title": "few", "budgets": [7], "datasets": project.settings["datasets"]}
    (project.folder / "few.yaml").write_text(yaml.safe_dump(few))
    before = sorted(project.folder.rglob("*"))
    wanted = ("results/study.json", "results/datasets/polls/questions.parquet")
    said = project.run(*wanted, "--directory", str(folder), study="few.yaml")
    assert f"Result: {folder / 'results' / 'study.json'}" in said
    assert "Report:" not in said
    settings = json.loads((folder / "results" / "study.json").read_text())
    assert settings["budgets"] == [7]
    assert settings["models"][0]["name"] == "digits-llava"
    assert (folder / "logs" / "data" / "polls.log").is_file()
    assert sorted(project.folder.rglob("*")) == before
    jobs = project.plan("--directory", str(folder))
    assert {"Train the model tiny", "Put the report together: reports/report.html"} <= jobs


def test_claims_captions_and_style_are_found_from_another_folder(project, elsewhere):
    said = project.run("--directory", str(elsewhere), "--forcerun", "claims", "html_report")
    report = elsewhere / "reports" / "report.html"
    assert said.count(f"Report: {report}") == 1
    ours, original = report.read_text(), (project.folder / "reports" / "report.html").read_text()
    assert abs(len(ours) - len(original)) < len(original) / 100
    claims = (folder / "results" / "claims.json" for folder in (elsewhere, project.folder))
    assert len({path.read_bytes() for path in claims}) == 1


def test_a_second_clone_cannot_run_in_shared_results_at_the_same_time(project, tmp_path):
    clone = Project.create(tmp_path / "clone")
    (clone.folder / "results").symlink_to(project.folder / "results")
    assert run_lock.lock(project.folder / "results"), "locks of folders do not work here"
    said = clone.run("verify", fails=True)
    assert f"{project.folder / 'results'} is in use by another run of snakemake" in said
    assert "Traceback" not in said
    assert not list(clone.folder.glob(".snakemake/locks/*"))
