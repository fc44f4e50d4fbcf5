"""One SLURM for all tests, and small studies that run on it."""

import threading
import time

import pytest

from helpers import slurm_cluster
from helpers.programs import require
from helpers.slurm_cluster import wait_for
from helpers.slurm_project import INFERENCE, SlurmProject


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    require("slurm-wlm", "slurmctld")
    with slurm_cluster.running(tmp_path_factory.mktemp("slurm") / "cluster") as running:
        yield running


@pytest.fixture(scope="session")
def submitted(cluster, undisturbed, tmp_path_factory):  # not beside that run
    """Run the small study through SLURM; return it and which job had which GPU when."""
    project = SlurmProject.create(tmp_path_factory.mktemp("submitted") / "study")
    project.cluster = cluster
    project.change(inference=INFERENCE)
    seen, said, process = [], [], project.start()
    reader = threading.Thread(target=lambda: said.extend(process.communicate()))
    reader.start()
    while reader.is_alive():
        seen.append(project.devices())
        time.sleep(0.1)
    assert process.returncode == 0, said[0]
    return project, seen


@pytest.fixture
def project(submitted, tmp_path):
    """Return a copy of the study that went through SLURM."""
    finished, _ = submitted
    copy = finished.copy(tmp_path / "study")
    copy.cluster = finished.cluster
    yield copy
    (copy.folder / "hold").unlink(missing_ok=True)
    copy.kill()
    if jobs := copy.cluster.jobs("RUNNING", "PENDING"):
        copy.cluster.call("scancel", *jobs)
        wait_for(lambda: not copy.cluster.jobs("RUNNING", "COMPLETING"), 30, "jobs to end")
