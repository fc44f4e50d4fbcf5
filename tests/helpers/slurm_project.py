"""The small study of tests/workflow, sent through SLURM by the project's own profile."""

import subprocess
import sys
from pathlib import Path

import psutil

from helpers.slurm_cluster import Cluster, wait_for
from helpers.small_project import STUDY, Project
from prunecal.study import resources

FAST = ("--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "10")
INFERENCE = {"device": "cpu", "gpus_per_job": 1, "cells_per_job": 3}  # GPUs are made up
HELD = "results/tiny/polls/scope-alpha0"
CELLS = (f"{HELD}/20/predictions.parquet", f"{HELD}/5/predictions.parquet")


class SlurmProject(Project):
    """A project whose Snakemake submits to a cluster."""

    cluster: Cluster

    def start(self, *arguments: str, study: str = STUDY) -> subprocess.Popen:
        """Start Snakemake on the login node, as the documentation tells users to."""
        command = [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/slurm"]
        command += [*FAST, *arguments, "--configfile", study]
        return self.popen(command, self.cluster.environment)

    def hold(self) -> Path:
        """Let the second of the two scope cells wait as long as a file exists; return the file."""
        new = """
        while Path("hold").exists() and cell["strategy"] == "scope-alpha0" and cell["budget"] == 5:
            time.sleep(0.05)
        start = time.perf_counter()
"""
        self.edit("infer.py", "\n        start = time.perf_counter()\n", new)
        place = self.folder / "hold"
        place.touch()
        return place

    def start_held(self, *arguments: str) -> tuple[subprocess.Popen, str]:
        """Start the two scope cells; return once one is finished, the other begun, and the job."""
        self.forget_cells()
        process = self.start(*CELLS, *arguments)
        wait_for(lambda: self.stored_cells() or process.poll() is not None, 90, "a finished cell")
        assert process.poll() is None, process.communicate()[0]
        (job,) = self.cluster.jobs("RUNNING")
        return process, job

    def needs(self) -> tuple[int, int]:
        """Return the MB and minutes that the job of the two scope cells should ask for."""
        manifest = f"{self.folder}/results/models/tiny/manifest.json"
        questions = f"{self.folder}/results/datasets/polls/questions.parquet"
        tokens = resources.question_tokens(questions, [20, 5])
        return resources.memory_mb(manifest), resources.minutes(manifest, tokens, gpus=1, threads=1)

    def provenance(self) -> list[str]:
        """Return the provenance of all finished cells: it holds wall times."""
        return [path.with_name("provenance.json").read_text() for path in self.stored_cells()]

    def devices(self) -> dict[str, tuple[str, str]]:
        """Return the node and the GPU of each inference that runs now, by SLURM's job."""
        found = {}
        for process in psutil.process_iter():
            try:
                words, place = process.cmdline(), process.cwd()
                if "prunecal.infer" in words and place == str(self.folder):
                    seen = process.environ()
                    its = seen["SLURMD_NODENAME"], seen["CUDA_VISIBLE_DEVICES"]
                    found[seen["SLURM_JOB_ID"]] = its
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # it has ended meanwhile
        return found


def ended(process: subprocess.Popen) -> str:
    """Expect a Snakemake to end well; return what it said."""
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said
