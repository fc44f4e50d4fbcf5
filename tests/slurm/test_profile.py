"""What can be said of the SLURM profile without a cluster."""

import asyncio
import re
import sys
from types import SimpleNamespace

import pytest
import slurm_polling
import yaml
from snakemake_executor_plugin_slurm import Executor

from helpers.small_project import ROOT, Project

PROFILE = "profiles/slurm/config.yaml"


@pytest.fixture
def project(tmp_path):
    return Project.create(tmp_path / "study")


def test_the_profile_repeats_what_every_run_needs():
    default, slurm = (
        yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())
        for name in ("default", "slurm")
    )
    shared = default.keys() - {"resources"}  # SLURM counts the GPUs
    assert {key: slurm[key] for key in shared} == {key: default[key] for key in shared}


def test_jobs_that_run_a_model_take_what_the_study_sets_and_others_what_the_profile_sets(project):
    text = re.sub("^  # (?=[a-z_]+: )", "  ", (ROOT / PROFILE).read_text(), flags=re.MULTILINE)
    (project.folder / PROFILE).write_text(text)
    for rules in (project.folder / "rules").glob("*.smk"):  # a job with a message hides the rest
        rules.write_text(re.sub(r" +message:\n .*\n", "", rules.read_text()))
    slurm = {"slurm_partition": "gpu", "gpu_model": "h200", "slurm_extra": "--exclude=n1 --nice"}
    project.change(inference={"gpus_per_job": 1, **slurm})
    said = project.run("--dry-run", "--workflow-profile", "profiles/slurm")
    jobs = re.findall(r"^rule (rank|\w+?)(?:_\w+)?:\n(?:    .+\n)*?    resources: (.+)", said, re.M)
    assert jobs, said
    for stage, resources in jobs:
        assert "slurm_account=my_account" in resources
        if stage in ("encode", "infer"):
            assert all(f"{key}={value}" in resources for key, value in slurm.items()), resources
        else:
            assert "slurm_partition=cpu" in resources
            assert "slurm_extra=--mail-type=FAIL" in resources
            assert "gpu_model" not in resources
    assert {"encode", "infer", "score", "rank", "train"} <= {stage for stage, _ in jobs}


@pytest.mark.parametrize(("wanted", "slept"), [(5, 5), (45, 10)])
def test_the_plugin_waits_no_longer_than_the_profile_allows(wanted, slept, monkeypatch):
    profile = yaml.safe_load((ROOT / PROFILE).read_text())
    waits = []

    async def note(seconds):
        waits.append(seconds)

    monkeypatch.setattr(Executor, "sleep", Executor.sleep)  # undone afterwards
    monkeypatch.setattr(asyncio, "sleep", note)
    settings = SimpleNamespace(
        seconds_between_status_checks=profile["seconds-between-status-checks"]
    )
    executor = Executor.__new__(Executor)
    executor.workflow = SimpleNamespace(remote_execution_settings=settings)
    executor.next_seconds_between_status_checks = wanted
    assert slurm_polling.bound_waits()
    asyncio.run(executor.sleep())
    assert waits == [slept]


def test_without_the_plugin_no_wait_is_bound(monkeypatch):
    monkeypatch.delitem(sys.modules, slurm_polling.PLUGIN)
    assert not slurm_polling.bound_waits()
    assert slurm_polling.PLUGIN not in sys.modules


@pytest.mark.parametrize("release", ["2.7.3", "2.9.0", "3.0.0"])
def test_a_plugin_whose_waits_are_not_known_keeps_them(monkeypatch, release):
    original = Executor.sleep
    monkeypatch.setattr(slurm_polling, "version", lambda _: release)
    assert not slurm_polling.bound_waits()
    assert Executor.sleep is original


def test_a_plugin_without_the_method_is_left_as_it_is(monkeypatch):
    monkeypatch.setitem(sys.modules, slurm_polling.PLUGIN, SimpleNamespace(Executor=object))
    assert not slurm_polling.bound_waits()
    assert not hasattr(object, "sleep")


def test_snakemake_plans_a_study_without_the_plugin(project):
    hide = "import sys; sys.modules['snakemake_executor_plugin_slurm'] = None\n"
    (project.folder / "rules" / "slurm_polling.py").write_text(
        hide + (project.folder / "rules" / "slurm_polling.py").read_text()
    )
    assert "Train the model tiny" in project.plan()


def test_prefetch_obtains_data_and_neither_trains_nor_computes(project):
    assert project.plan("prefetch") == {"Prepare the data set polls"}


def test_prefetch_obtains_every_model_and_data_set_of_the_papers_study(project):
    (project.folder / "paper.yaml").write_text((ROOT / "studies/llava-1.5-7b.yaml").read_text())
    assert project.plan("prefetch", study="paper.yaml") == {
        "Obtain the model llava-1.5-7b",
        "Prepare the data set pope",
        "Prepare the data set scienceqa-img",
    }
