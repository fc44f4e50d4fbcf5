"""What every test starts from, and which tests are slow: those in some of the folders."""

import fcntl
import os
import shutil
import sys
from pathlib import PurePath

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: threads would only wait
    os.environ.setdefault("OMP_NUM_THREADS", "1")

SLOW = ("browser", "fuzz", "slurm", "workflow")
SERIAL = ("slurm",)  # its tests share a cluster


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    """Mark tests by their folder."""
    for item in items:
        folder = item.path.parent.name
        if folder in SLOW:
            item.add_marker(folder)
            item.add_marker("slow")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give pytest-xdist's workers a whole file at a time, one of them all of SERIAL.

    (Its own --dist=loadgroup does so by marks, but 3.8 takes no notice of them under pytest 9.2.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = PurePath(nodeid.partition("::")[0])
            return "serial" if file.parent.name in SERIAL else str(file)

    return ByFile(config, log)


@pytest.fixture(autouse=True)
def _all_numbers():
    """Undo what stages set for their own process: arithmetic without denormal numbers."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """Return the results of the whole made-up study, for tests that only read them."""
    from helpers import synthetic_results  # it takes seconds, which not every test needs

    return synthetic_results.write(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """Return the finished small study, run once for all workers; tests read or copy it."""
    from helpers.small_project import Project

    base = tmp_path_factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "undisturbed"
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "done").exists():
            shutil.rmtree(place / "study", ignore_errors=True)
            Project.create(place / "study").run()
            (place / "done").touch()
    return Project(place / "study")
