"""What runs again after a change, and what does not: the caching contract, letters a to l.

For edits of code, which `b` shows to follow the digests, see also tests/unit/test_edits.py.
"""

import argparse
import ast
import os
import re
import shutil

import pytest
import yaml

from helpers.kills import kill_during_inference
from prunecal import verify

INFER = "Infer 7 cells of tiny on polls"
COSTLY = ("Train", "Obtain", "Prepare", "Encode", "Rank", "Infer")  # all before the scores
RANKED = ("full", "saliency", "scope-alpha0")
FLIPPED = """
def _another(family, order):
    return order.flip(1) if family == "scope" else order


"""


def starting(jobs, *words):
    """Return the jobs whose message starts with one of these words."""
    return {job for job in jobs if job.split()[0] in words}


def test_a_touched_results_and_sources_leave_nothing_to_do(project):
    for part in ("results", "workflow", "rules", "reports", "envs"):
        for path in (project.folder / part).rglob("*"):
            os.utime(path)
    for name in ("Snakefile", "config.yaml", "small.yaml"):
        os.utime(project.folder / name)
    assert project.plan() == set()


def test_b_a_comment_or_a_docstring_anywhere_leaves_nothing_to_do(project):
    for path in project.folder.rglob("*.py"):
        path.write_text(reworded(path.read_text()) + "\n# a remark\n")
    for path in (project.folder / "rules").glob("*.*"):
        path.write_text(f"# a remark\n{path.read_text()}")
    assert project.plan() == set()


def reworded(text):
    """Return Python source with every docstring changed."""
    lines = text.splitlines(keepends=True)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            line = node.body[0].lineno - 1
            lines[line] = lines[line].replace('"""', '"""In other words: ', 1)
    changed = "".join(lines)
    assert '"""' not in text or changed != text
    return changed


def test_c_changed_parameters_of_a_strategy_concern_its_cells_and_the_aggregates(project):
    before, metrics = project.runs_of_cells(), project.numbers()["results/metrics.parquet"]
    changed = [
        {"strategy": "scope", "alpha": 1} if "scope" in str(entry) else entry
        for entry in project.settings["strategies"]
    ]
    project.change(strategies=changed)
    jobs = project.plan()
    assert starting(jobs, *COSTLY) == {
        INFER,
        "Rank the visual tokens of polls by 3 strategies",
    }
    assert starting(jobs, "Score", "Compare", "Put") == {
        "Score tiny on polls",
        "Compare every cell with the unpruned model",
        "Put the report together: reports/report.html",
    }
    project.run(*project.cells(), "results/metrics.parquet")
    after = project.runs_of_cells()
    assert after.keys() - before.keys() == {"scope-alpha1/20", "scope-alpha1/5"}
    assert {name: after[name] for name in after.keys() & before.keys()} == {
        name: text for name, text in before.items() if "scope" not in name
    }
    assert project.numbers()["results/metrics.parquet"] != metrics


def test_d_a_new_budget_computes_the_new_cells_alone(project):
    before = project.runs_of_cells()
    project.change(budgets=[20, 10, 5])
    jobs = project.plan()
    assert starting(jobs, *COSTLY) == {"Infer 10 cells of tiny on polls"}
    assert "Compare every cell with the unpruned model" in jobs
    project.run(*project.cells())
    after = project.runs_of_cells()
    assert after.keys() - before.keys() == {"saliency/10", "scope-alpha0/10", "fastv-layer2/10"}
    assert before.items() <= after.items()


def test_e_a_figures_code_concerns_figures_and_report_alone(project):
    module = project.folder / "workflow" / "prunecal" / "figures" / "pareto.py"
    module.write_text(f"{module.read_text()}\nANOTHER = 1\n")
    assert project.plan() == {
        "Draw accuracy against ECE",
        "Put the report together: reports/report.html",
    }


def test_f_a_ranking_helper_that_changes_no_ranking_repeats_no_inference(project):
    before = project.runs_of_cells()
    helper = project.folder / "workflow" / "prunecal" / "strategies" / "_vision.py"
    helper.write_text(f"{helper.read_text()}\nANOTHER = 1\n")
    assert "Rank the visual tokens of polls by 3 strategies" in project.plan()
    # Snakemake plans a run before it sees what the rankings hold, so it calls the job of the cells;
    # the job sees that no ranking changed, and neither loads the model nor computes anything
    said = project.run(*project.cells())
    assert "Finished jobid" in said
    assert "Loading weights" not in said
    assert project.runs_of_cells() == before


def test_f_equal_rankings_that_are_there_before_a_run_set_off_nothing(project):
    helper = project.folder / "workflow" / "prunecal" / "strategies" / "_vision.py"
    helper.write_text(f"{helper.read_text()}\nANOTHER = 1\n")
    project.run(*(f"results/tiny/polls/{name}/ranking.safetensors" for name in RANKED))
    assert starting(project.plan(), *COSTLY, "Score", "Compare") == set()


def test_f_a_helper_that_changes_one_ranking_repeats_that_strategys_cells(project):
    before = project.runs_of_cells()
    project.edit("rank.py", "zip(order.to(", "zip(_another(family, order).to(")
    project.edit("rank.py", "def main(", FLIPPED + "def main(")
    assert len(starting(project.plan(), "Rank")) == 1
    project.run(*project.cells())
    after = project.runs_of_cells()
    again = {name for name in before if before[name] != after[name]}
    assert again == {"scope-alpha0/20", "scope-alpha0/5"}


def test_g_another_study_with_the_same_parts_reuses_their_files(project):
    shared = project.settings | {"study": "other", "statistics": {"resamples": 200}}
    (project.folder / "other.yaml").write_text(yaml.safe_dump(shared))
    jobs = project.plan(study="other.yaml")
    assert starting(jobs, *COSTLY) == set()
    assert "Score tiny on polls" in jobs


def test_g_a_study_that_cuts_its_jobs_otherwise_is_handed_finished_cells(project):
    before = project.runs_of_cells()
    fewer = project.settings | {"study": "other", "strategies": ["full", "saliency"]}
    (project.folder / "other.yaml").write_text(yaml.safe_dump(fewer))
    jobs = project.plan(study="other.yaml")
    assert starting(jobs, *COSTLY) == {
        "Infer 3 cells of tiny on polls",
        "Rank the visual tokens of polls by 2 strategies",
    }
    chosen = [cell for cell in project.cells() if "/saliency/" in cell or "/full/" in cell]
    project.run(*chosen, study="other.yaml")
    assert project.runs_of_cells() == before


def test_h_a_killed_run_repeats_at_most_the_cell_in_flight(project, undisturbed):
    project.forget_cells()
    done = kill_during_inference(project, finished_cells=2, delay=0)
    assert len(done) >= 2
    project.run("--unlock")
    project.run(*project.cells())
    assert all(path.read_text() == text for path, text in done.items())
    assert project.numbers() == undisturbed.numbers()


def test_i_after_a_failed_run_stale_aggregates_are_not_called_done(project, undisturbed):
    healthy = project.settings["strategies"]
    project.change(strategies=[*healthy, {"strategy": "fastv", "layer": 9}])
    said = project.run(*project.cells(), fails=True)
    assert "2 of 9 cells failed: fastv-layer9/20" in said
    assert "fastv-layer9/5" in said
    jobs = project.plan()
    assert {"Infer 9 cells of tiny on polls", "Score tiny on polls"} <= jobs
    assert "Put the report together: reports/report.html" in jobs
    project.change(strategies=healthy)
    assert INFER in project.plan()
    project.run(*project.cells())
    assert project.runs_of_cells() == undisturbed.runs_of_cells()  # kept although their job failed
    assert project.plan() == set()


def test_i_after_a_killed_run_stale_aggregates_are_not_called_done(project):
    helper = project.folder / "workflow" / "prunecal" / "engine" / "batch.py"
    helper.write_text(f"{helper.read_text()}\nANOTHER = 1\n")
    kill_during_inference(project, finished_cells=1, delay=0)
    project.run("--unlock")
    jobs = project.plan()
    assert {INFER, "Score tiny on polls"} <= jobs
    assert "Put the report together: reports/report.html" in jobs


def test_j_damaged_results_are_noticed_and_made_again_on_request(project, undisturbed):
    folder = project.folder / "results" / "tiny" / "polls"
    cell = folder / "scope-alpha0" / "5" / "predictions.parquet"
    cell.write_bytes(cell.read_bytes()[:-7])
    altered = folder / "saliency" / "ranking.safetensors"
    content = bytearray(altered.read_bytes())
    content[-1] ^= 1
    altered.write_bytes(content)
    (project.folder / "results" / "metrics.parquet").write_bytes(b"")
    said = project.run("verify", fails=True)
    for name in ("scope-alpha0/5/predictions", "saliency/ranking", "results/metrics"):
        assert re.search(f"{name}.* is missing or not as it was written", said)
    assert "3 damaged files: `snakemake --configfile small.yaml --cores 1 repair` removes" in said
    project.run("repair")
    assert {INFER, "Rank the visual tokens of polls by 3 strategies"} <= project.plan()
    project.run(*project.cells(), "results/metrics.parquet")
    assert project.numbers() == undisturbed.numbers()
    assert project.runs_of_cells() == undisturbed.runs_of_cells()
    assert "0 damaged files" in project.run("verify")


def test_j_damage_to_any_result_is_noticed(project):
    results = project.folder / "results"
    assert verify.damaged_files(results) == []
    files = {path for path in results.rglob("*") if path.is_file()}
    files -= {path for path in files if path.name.startswith(".")}
    manifest = results / "models" / "tiny" / "manifest.json"
    for path in files - {manifest}:
        path.write_bytes(path.read_bytes() + b" ")
    weights = {path for _, path, _ in verify.damaged_weights(results)}
    assert {*verify.damaged_files(results), *weights} == files - {manifest}
    manifest.write_bytes(b"")
    assert manifest in verify.damaged_files(results)


@pytest.mark.parametrize(
    ("name", "job"),
    [
        ("models/tiny/weights/tokenizer.json", "Train the model tiny"),
        ("models/tiny/weights/learning_curve.csv", "Train the model tiny"),
        ("datasets/polls/images.parquet", "Prepare the data set polls"),
        ("tiny/polls/features.safetensors", "Encode the images of polls with tiny"),
        ("tiny/polls/full/100/provenance.json", INFER),
        ("metrics.csv", "Compare every cell with the unpruned model"),
        ("figures/pareto.png", "Draw accuracy against ECE"),
    ],
)
def test_j_whatever_was_removed_as_damaged_is_asked_for_anew(project, name, job):
    path = project.folder / "results" / name
    path.write_bytes(path.read_bytes()[:-1])
    names = ("settings", "record", "other_versions", "outdated", "log")
    given = dict.fromkeys(names) | {"repair": True, "command": "snakemake"}
    verify.main(argparse.Namespace(results=project.folder / "results", **given))
    assert job in project.plan()


def test_j_a_damaged_cell_in_the_store_is_computed_again(project, undisturbed):
    stored = next(project.folder.glob("results/.cells/*/*/predictions.parquet"))
    stored.write_bytes(b"")
    for cell in project.cells():
        shutil.rmtree((project.folder / cell).parent)
    project.run(*project.cells())
    assert project.numbers() == undisturbed.numbers()
    before, after = undisturbed.runs_of_cells(), project.runs_of_cells()
    assert sum(before[name] != after[name] for name in before) == 1


def test_k_a_label_redraws_what_shows_it_and_computes_nothing(project):
    project.edit("strategies/fastv.py", 'LABEL = "FastV"', 'LABEL = "Fast V"')
    jobs = project.plan()
    assert starting(jobs, *COSTLY, "Score", "Compare", "Ask") == set()
    assert "Draw metrics against the budget" in jobs
    assert "Put the report together: reports/report.html" in jobs


def test_without_snakemakes_record_no_change_goes_unmentioned(project):
    assert "have no record in .snakemake" not in project.run("--dry-run")
    shutil.rmtree(project.folder / ".snakemake")
    project.change(statistics={"resamples": 100, "bins": 10})
    said = project.run("--dry-run")
    assert "have no record in .snakemake" in said
    assert "`snakemake --configfile small.yaml --cores 1 verify` names those that are out" in said
    said = project.run("verify", fails=True)
    assert "results/scores/tiny/polls.safetensors" in said
    project.run("repair_outdated")
    assert "Score tiny on polls" in project.plan()


def test_results_recorded_as_up_to_date_are_watched_from_then_on(project):
    shutil.rmtree(project.folder / ".snakemake")
    project.run("--touch", "--forceall", "results")
    assert "have no record" not in project.run("--dry-run", "results")
    project.change(statistics={"resamples": 150})
    assert "Score tiny on polls" in project.plan()
