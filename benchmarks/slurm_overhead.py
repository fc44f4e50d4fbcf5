"""How long the embedded study takes through SLURM, and how long of it nothing is done.

PYTHONPATH=tests python benchmarks/slurm_overhead.py --out benchmarks/slurm.json

The study runs on the tests' two nodes with two made-up GPUs each, in a copy of this checkout.
Counted is what the longest way through SLURM's jobs waits: from the first submission to the first
job's start, from the end of each job to the start of the next, until Snakemake notices the last
one's end. Times are SLURM's and Snakemake's, in whole seconds.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from helpers import slurm_cluster
from helpers.small_project import Project
from prunecal.core import cli
from prunecal.core.errors import PrunecalError
from prunecal.storage import files

SETTINGS = "inference: {device: cpu, gpus_per_job: 1}\n"  # the GPUs are made up
COMMAND = "snakemake --workflow-profile profiles/slurm --configfile slurm.yaml"
STAGES = ("train", "encode", "rank", "infer", "score")  # each needs the one before
SUBMITTED = r"Job (\d+) has been submitted with SLURM jobid (\d+) \(log: (.+)\)"
STAMP = r"\[(?P<time>\w{3} \w{3} +\d+ [\d:]+ \d{4})\]\n"


def main(arguments: argparse.Namespace) -> None:
    """Run the study and write what was measured.

    Raises:
        PrunecalError: the study failed.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        slurm_cluster.running(Path(folder) / "cluster") as cluster,
    ):
        project = Project.create(Path(folder) / "study")
        (project.folder / "slurm.yaml").write_text(SETTINGS)
        started = datetime.now()
        done = subprocess.run(
            [sys.executable, "-m", *COMMAND.split()],
            cwd=project.folder,
            env=cluster.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        wall = datetime.now() - started
        if done.returncode:
            raise PrunecalError(f"the study failed:\n{done.stdout}")
        found = measure(done.stdout, cluster)
    about = files.provenance(
        command="PYTHONPATH=tests python benchmarks/slurm_overhead.py --out benchmarks/slurm.json",
        study=f"{COMMAND}, which holds `{SETTINGS.strip()}`",
        nodes=len(slurm_cluster.NODES),
    )
    files.write_json(
        arguments.out, {"about": about, "wall_s": round(wall.total_seconds()), **found}
    )


class Job(NamedTuple):
    """A job of SLURM's: when it ran, and what it made."""

    end: datetime
    start: datetime
    stage: int
    dataset: str


def measure(said: str, cluster: slurm_cluster.Cluster) -> dict:
    """Return the seconds that the longest way through the study waited, and where.

    The way goes from the job that ended last back to the last of those that it needed, and so on.

    Args:
        said: all that Snakemake said.
        cluster: which ran its jobs.
    """
    submitted = {number: (job, log) for number, job, log in re.findall(SUBMITTED, said)}
    begun, ended = (
        [_time(time) for time, number in re.findall(STAMP + words, said) if number in submitted]
        for words in (r"Job (\d+):", r"Finished jobid: (\d+)")
    )
    jobs = [_job(log, *cluster.times(job)) for job, log in submitted.values()]
    last = max(jobs)
    waits = {f"after {STAGES[last.stage]}": max(ended) - last.end}
    while last.stage:
        needed = [job for job in jobs if job.stage == last.stage - 1]
        before = max(job for job in needed if job.dataset in ("", last.dataset))
        waits[f"before {STAGES[last.stage]}"] = last.start - before.end
        last = before
    waits[f"before {STAGES[0]}"] = last.start - min(begun)
    seconds = {name: int(wait.total_seconds()) for name, wait in reversed(waits.items())}
    return {"jobs": len(jobs), "waits_s": seconds, "overhead_s": sum(seconds.values())}


def _job(log: str, start: datetime, end: datetime) -> Job:
    (stage,) = (number for number, name in enumerate(STAGES) if f"rule_{name}" in log)
    dataset = "".join(re.findall("digits-(?:pope|sqa)", log))
    return Job(end, start, stage, dataset)


def _time(stamp: str) -> datetime:
    return datetime.strptime(stamp, "%a %b %d %H:%M:%S %Y")


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    cli.run(main, parser.parse_args())
