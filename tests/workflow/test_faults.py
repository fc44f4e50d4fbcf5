"""What breaks a run from outside, and that it costs no more than it must."""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from helpers.kills import kill_during_inference, kill_scoring
from prunecal import verify
from prunecal.storage.files import PART, part_prefix

TRIALS = int(os.environ.get("PRUNECAL_KILL_TRIALS", "2"))  # 20 before a release


@pytest.mark.parametrize("trial", range(TRIALS))
def test_a_run_killed_at_a_random_moment_ends_as_the_undisturbed_one(project, undisturbed, trial):
    draw = random.Random(trial)
    project.forget_cells()
    cells = draw.randrange(len(project.cells()))
    kill_during_inference(project, finished_cells=cells, delay=draw.uniform(0, 0.5))
    results = project.folder / "results"
    halved = [path for path in verify.damaged_files(results) if path.exists()]
    assert halved == [], "a file was half-written under its final name"
    project.run("--unlock")
    project.run(*project.cells())
    assert project.numbers() == undisturbed.numbers()
    assert verify.damaged_files(results) == []


@pytest.mark.parametrize("trial", range(TRIALS))
def test_scoring_killed_at_a_random_moment_leaves_no_worker_and_ends_as_undisturbed(
    project, undisturbed, trial
):
    draw = random.Random(trial)
    scores = "results/scores/tiny/polls.safetensors"
    (project.folder / scores).unlink()
    kill_scoring(project, scores, workers=draw.randrange(4), delay=draw.uniform(0, 1.5))
    results = project.folder / "results"
    halved = [path for path in verify.damaged_files(results) if path.exists()]
    assert halved == [], "a file was half-written under its final name"
    project.run(scores, "results/metrics.parquet", "results/claims.json")
    assert project.numbers() == undisturbed.numbers()
    assert verify.damaged_files(results) == []


def test_a_second_run_in_the_folder_says_that_it_is_locked_and_damages_nothing(
    project, undisturbed
):
    for cell in project.cells():
        shutil.rmtree((project.folder / cell).parent)
    first = project.start(*project.cells())
    locks = project.folder / ".snakemake" / "locks"
    deadline = time.monotonic() + 60
    # held once the files that it will write are listed
    while not any(path.stat().st_size for path in locks.glob("*.output.lock")):
        assert time.monotonic() < deadline, "the first run took no lock"
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGSTOP)
    try:
        assert "cannot be locked" in project.run(*project.cells(), fails=True)
    finally:
        os.killpg(first.pid, signal.SIGCONT)
        said, _ = first.communicate(timeout=600)
    assert first.returncode == 0, said
    assert project.numbers() == undisturbed.numbers()


@contextlib.contextmanager
def mounted(place, *options):
    """Mount something at a folder while the block runs; skip where that is not allowed."""
    done = subprocess.run(["mount", *options, place], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"NOT TESTED: this user cannot mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_named_in_one_sentence_and_leaves_whole_files_alone(project, undisturbed):
    project.forget_cells()
    cells = project.folder / "results" / ".cells"
    cells.mkdir()
    with mounted(cells, "-t", "tmpfs", "-o", "size=96k", "tmpfs"):
        said = project.run(*project.cells(), fails=True)
        assert " cannot be written (No space left on device); free some space or grant" in said
        assert "Traceback" not in said
        stored = list(cells.glob("*/*/predictions.parquet"))
        assert 0 < len(stored) < len(project.cells())
        damaged = [path for path in verify.damaged_files(cells) if path.exists()]
        assert damaged == []
    project.run(*project.cells())
    assert project.numbers() == undisturbed.numbers()


def test_a_disk_that_is_full_when_training_ends_is_named_by_the_weights_folder(project):
    models = project.folder / "results" / "models"
    with mounted(models, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        said = project.run("results/models/tiny/manifest.json", fails=True)
        assert (
            "models/tiny/weights cannot be written (No space left on device); free some space"
            in said
        )
        assert "Traceback" not in said
        assert not any(path.is_file() for path in models.rglob("*"))


def test_a_read_only_results_folder_is_named_and_keeps_its_files(project, undisturbed):
    strategies, budgets = project.settings["strategies"], project.settings["budgets"]
    results = project.folder / "results"
    project.change(strategies=[*strategies, "divprune"])
    with mounted(results, "--bind", "-o", "ro", results):
        said = project.run("results/tiny/polls/divprune/ranking.safetensors", fails=True)
        assert "Write-protected output files for rule rank_tiny_polls_0" in said
        project.change(strategies=strategies, budgets=[*budgets, 7])  # needs no other ranking:
        said = project.run(*project.cells(), fails=True)  # of several jobs any may be named
        assert "Write-protected output files for rule infer_tiny_polls_0" in said
        assert "results/tiny/polls/saliency/20/predictions.parquet" in said
    assert project.numbers() == undisturbed.numbers()


def test_what_a_killed_job_left_half_written_is_pruned_and_nothing_else(project, undisturbed):
    folder = project.folder / "results" / "tiny" / "polls"
    left = folder / f"{part_prefix(folder / 'features.safetensors')}abcd1234{PART}"
    left.write_text("half")
    assert "removed 0 and 0 half-written files" in project.run("prune")  # this process is alive
    number = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True)
    left = left.rename(str(left).replace(f".{os.getpid()}.", f".{number.stdout.strip()}."))
    assert "removed 0 and 1 half-written file" in project.run("prune")
    assert not left.exists()
    assert project.numbers() == undisturbed.numbers()


def test_results_of_other_code_are_named_until_they_are_made_again(project, undisturbed):
    with (project.folder / "workflow" / "prunecal" / "engine" / "batch.py").open("a") as file:
        file.write("\nCHANGED = True\n")
    project.edit("strategies/scope.py", "CANDIDATES = 4", "CANDIDATES = 5")  # more work alone
    said = project.run("verify", fails=True)
    named = re.findall(r"results/(\S+) was made by other code than this checkout's", said)
    assert "tiny/polls/scope-alpha0/ranking.safetensors" in named
    assert "tiny/polls/saliency/ranking.safetensors" not in named
    for cell in project.cells():
        assert f"{cell} was made by other code than this checkout's" in said
    assert (
        f"{len(named)} outdated files: `snakemake --configfile small.yaml --cores 1 repair_" in said
    )
    project.run("repair")
    assert project.numbers() == undisturbed.numbers()
    project.run()
    project.run("verify")
    assert project.numbers() == undisturbed.numbers()


def test_logits_that_overflow_fail_by_name_while_another_model_finishes(project, undisturbed):
    weights = project.folder / "results" / "models" / "tiny" / "weights"
    poisoned = project.folder / "poisoned"
    shutil.copytree(weights, poisoned)
    with safe_open(poisoned / "model.safetensors", framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    head = next(name for name in arrays if name.endswith("lm_head.weight"))
    arrays[head] = np.sign(arrays[head]) * np.float32(3e38)  # finite, its products are not
    save_file(arrays, poisoned / "model.safetensors", metadata={"format": "pt"})
    model = {"name": "poisoned", "family": "llava", "visual_tokens": 100, "path": "poisoned"}
    for cell in project.cells():
        shutil.rmtree((project.folder / cell).parent)
    strategies = [entry for entry in project.settings["strategies"] if "scope" not in str(entry)]
    project.change(models=[*project.settings["models"], model], strategies=strategies)
    said = project.run(*project.cells(), fails=True)
    assert "5 of 5 cells failed: full/100" in said
    assert "NaN" in said
    assert "Traceback" not in said
    finished = {path for path in project.numbers() if path.startswith("results/tiny/")}
    expected = {path for path in undisturbed.numbers() if path.startswith("results/tiny/")}
    assert {path for path in expected if "/scope" not in path} <= finished
    assert not list(project.folder.glob("results/poisoned/polls/*/*/predictions.parquet"))
