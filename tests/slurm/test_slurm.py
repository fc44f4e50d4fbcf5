"""The small study on a real SLURM of two nodes, and what clusters do to jobs."""

import os
import shutil
import signal
import subprocess
import sys
from datetime import timedelta

import psutil
import pytest

from helpers.slurm_cluster import NODES, wait_for
from helpers.slurm_project import CELLS, INFERENCE, ended
from helpers.small_project import ROOT
from prunecal import verify


def results(project):
    numbers = project.numbers()
    return {path: numbers[path] for path in CELLS}


def damaged(project):
    """List what verify calls damaged, but for cells that the test has not made again."""
    return [path for path in verify.damaged_files(project.folder / "results") if path.exists()]


def test_slurm_gives_the_bytes_of_a_local_run(submitted, undisturbed):
    expected, found = undisturbed.numbers(), submitted[0].numbers()
    assert found.pop("results/study.json") != expected.pop("results/study.json")  # of other jobs
    assert {"results/metrics.parquet", "results/claims.json", *undisturbed.cells()} <= set(expected)
    assert found == expected
    assert (submitted[0].folder / "reports" / "report.html").is_file()


def test_two_jobs_never_share_a_gpu(submitted):
    _, seen = submitted
    assert max(map(len, seen)) > 1, "no two jobs ran at once: nothing was tested"
    for devices in seen:
        assert len(set(devices.values())) == len(devices), devices


def test_no_minute_passes_in_which_jobs_could_run_and_none_does(submitted):
    project, _ = submitted
    logs = (project.folder / "logs" / "slurm").rglob("*.log")
    times = sorted(project.cluster.times(log.stem) for log in logs)
    idle, until = timedelta(), times[0][0]
    for start, end in times:
        idle += max(timedelta(), start - until)
        until = max(until, end)
    assert idle < timedelta(seconds=60)


def test_only_jobs_that_compute_are_submitted(submitted):
    project, _ = submitted
    asked = {}
    for folder in (project.folder / "logs" / "slurm").iterdir():
        for log in folder.rglob("*.log"):
            asked.setdefault(folder.name, []).append(project.cluster.facts(log.stem))
    gpus = {name for name, jobs in asked.items() if any("TresPerJob" in job for job in jobs)}
    ranks = {name for name in asked if name.startswith("rule_rank_")}
    infers = {f"rule_infer_tiny_polls_{number}" for number in range(3)}
    assert infers | {"rule_encode"} <= gpus
    assert set(asked) - gpus - ranks == {"rule_train", "rule_score"}
    for name in infers:
        (job,) = asked[name]
        assert job["TresPerJob"] == "gres:gpu:1"
        assert job["JobState"] == "COMPLETED"
    (job,) = asked["rule_infer_tiny_polls_1"]
    memory, minutes = project.needs()
    assert job["TimeLimit"] == f"00:{minutes}:00"
    assert f"mem={memory}M" in job["TRES"]


def test_a_cancelled_job_is_sent_again_with_more_and_keeps_its_finished_cell(project, undisturbed):
    hold = project.hold()
    process, job = project.start_held()
    (finished,) = project.provenance()
    project.cluster.call("scancel", job)
    wait_for(lambda: project.cluster.facts(job)["JobState"] == "CANCELLED", 30, "scancel")
    hold.unlink()
    said = ended(process)
    assert "status is: 'CANCELLED'" in said
    assert finished in project.provenance()
    assert results(project) == results(undisturbed)
    again = project.cluster.facts(str(int(job) + 1))
    memory, minutes = project.needs()
    assert (again["JobState"], again["TimeLimit"]) == ("COMPLETED", f"00:{2 * minutes}:00")
    assert f"mem={2 * memory}M" in again["TRES"]


def test_a_job_that_runs_out_of_time_is_sent_again_with_more(project, undisturbed):
    project.change(inference=INFERENCE | {"runtime": 1})
    hold = project.hold()
    process, job = project.start_held()
    (finished,) = project.provenance()
    wait_for(lambda: project.cluster.facts(job)["JobState"] == "TIMEOUT", 150, "the time limit")
    hold.unlink()
    assert "status is: 'TIMEOUT'" in ended(process)
    assert finished in project.provenance()
    assert results(project) == results(undisturbed)


def test_another_node_takes_over_from_a_dead_one_whose_process_goes_on(project, undisturbed):
    hold = project.hold()
    process, job = project.start_held()
    cluster, node = project.cluster, project.cluster.facts(job)["NodeList"]
    (orphan,) = [one for one in project.processes() if "prunecal.infer" in one.cmdline()]
    cluster.kill_node(node)
    try:
        wait_for(lambda: str(int(job) + 1) in cluster.jobs("RUNNING"), 120, "the second job")
        assert cluster.facts(str(int(job) + 1))["NodeList"] != node
        assert orphan.is_running()
        hold.unlink()  # both write the same cell now
        assert "status is: 'NODE_FAIL'" in ended(process)
        wait_for(lambda: not psutil.pid_exists(orphan.pid), 30, "the orphan's end")
    finally:
        cluster.start_node(node)
    assert results(project) == results(undisturbed)
    assert damaged(project) == []


def test_a_node_that_does_not_see_the_project_fails_its_jobs_and_can_be_left_out(
    project, undisturbed
):
    blind, cluster = NODES[0], project.cluster
    project.forget_cells()
    cluster.kill_node(blind)
    try:
        cluster.start_node(blind, hidden=project.folder)
        before = set(cluster.jobs())
        process = project.start(*CELLS, "--retries", "0")
        said, _ = process.communicate(timeout=120)
        assert process.returncode != 0
        (job,) = set(cluster.jobs()) - before
        facts = cluster.facts(job)
        assert (facts["JobState"], facts["NodeList"]) == ("FAILED", blind), said
        assert f"SLURM-job '{job}' failed" in said
        project.change(inference=INFERENCE | {"slurm_extra": f"--exclude={blind}"})
        ended(project.start(*CELLS))
    finally:
        cluster.kill_node(blind)
        cluster.start_node(blind)
    assert results(project) == results(undisturbed)
    assert damaged(project) == []


def test_a_killed_snakemake_is_started_again_after_unlock_and_scancel_by_name(project, undisturbed):
    hold = project.hold()
    process, job = project.start_held()
    (finished,) = project.provenance()
    process.kill()
    process.communicate()
    assert project.cluster.jobs("RUNNING") == [job]
    page = (ROOT / "docs" / "slurm.md").read_text().splitlines()
    (line,) = [line for line in page if line.endswith("xargs -r scancel")]
    subprocess.run(["bash", "-c", line], env=project.cluster.environment, check=True)
    wait_for(lambda: not project.cluster.jobs("RUNNING", "COMPLETING"), 30, "the orphan's end")
    hold.unlink()
    assert "cannot be locked" in project.run(*CELLS, fails=True)
    project.run("--unlock")
    project.run(*CELLS)
    assert finished in project.provenance()
    assert results(project) == results(undisturbed)
    assert damaged(project) == []


def test_an_interrupted_snakemake_cancels_its_jobs(project):
    project.hold()
    process, job = project.start_held()
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    wait_for(lambda: project.cluster.facts(job)["JobState"] == "CANCELLED", 10, "cancellation")


@pytest.mark.parametrize("record", ["with", "without"])
def test_moved_results_give_the_report_again_without_computing(project, tmp_path, record):
    home = tmp_path / "home"
    shutil.move(project.folder, home)
    project.folder = home
    (home / "reports" / "report.html").unlink()
    if record == "without":
        shutil.rmtree(home / ".snakemake")
    before = project.numbers(), project.runs_of_cells()
    base = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", "small.yaml"]
    calls = [["--touch", "results"], []] if record == "without" else [[]]
    for call in calls:
        done = subprocess.run([*base, *call], cwd=home, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (home / "reports" / "report.html").is_file()
    assert (project.numbers(), project.runs_of_cells()) == before
