"""Results in another folder than the checkout, and in one that clones share."""

import shutil

import pytest
import run_lock

from helpers.small_project import Project

HERE = ("study.json", "claims.json")


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


def test_another_folder_holds_the_whole_study(project, tmp_path):
    folder = tmp_path / "new"
    before = sorted(project.folder.rglob("*"))
    project.run("results/study.json", "results/datasets/polls/questions.parquet",
                "--directory", str(folder))  # fmt: skip
    assert (folder / "results" / "study.json").is_file()
    assert (folder / "logs" / "data" / "polls.log").is_file()
    assert sorted(project.folder.rglob("*")) == before
    jobs = project.plan("--directory", str(folder))
    assert {"Train the model tiny", "Put the report together: reports/report.html"} <= jobs


def test_settings_of_the_checkout_hold_in_another_folder(project, tmp_path):
    """A study says only what differs from config.yaml, which lies beside the Snakefile."""
    budgets = project.settings["budgets"]
    (project.folder / "few.yaml").write_text("title: few\nbudgets: [7]\n")
    said = project.run("results/study.json", "--directory", str(tmp_path / "new"), study="few.yaml")
    assert f"Result: {tmp_path / 'new' / 'results' / 'study.json'}" in said
    assert "Report:" not in said
    settings = (tmp_path / "new" / "results" / "study.json").read_text()
    assert "digits-llava" in settings
    assert str(budgets) not in settings


def test_claims_captions_and_style_are_found_from_another_folder(project, elsewhere):
    said = project.run("--directory", str(elsewhere), "--forcerun", "claims", "html_report")
    report = elsewhere / "reports" / "report.html"
    assert f"Report: {report}" in said
    ours, original = report.read_text(), (project.folder / "reports" / "report.html").read_text()
    assert abs(len(ours) - len(original)) < len(original) / 100
    claims = (folder / "results" / "claims.json" for folder in (elsewhere, project.folder))
    assert len({path.read_bytes() for path in claims}) == 1


def test_a_run_ends_with_the_place_of_the_report(project):
    (project.folder / "reports" / "report.html").unlink()
    said = project.run()
    assert said.count(f"Report: {project.folder / 'reports' / 'report.html'}") == 1


def test_a_second_clone_cannot_run_in_shared_results_at_the_same_time(project, tmp_path):
    clone = Project.create(tmp_path / "clone")
    (clone.folder / "results").symlink_to(project.folder / "results")
    assert run_lock.lock(project.folder / "results"), "locks of folders do not work here"
    said = clone.run("verify", fails=True)
    assert f"{project.folder / 'results'} is in use by another run of snakemake" in said
    assert "Traceback" not in said
    assert not list(clone.folder.glob(".snakemake/locks/*"))
