"""Kill a run, or a stage of it, without warning."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import psutil

from helpers.small_project import Project


def kill_during_inference(project: Project, finished_cells: int, delay: float) -> dict[Path, str]:
    """Start all cells, kill the whole process group, and return the cells finished before.

    Args:
        project: a study whose cells are to be computed.
        finished_cells: kill when so many more cells are in the store.
        delay: seconds to wait after that.

    Returns:
        The finished cells' provenance files and their texts.
    """
    there = len(project.stored_cells())
    process = project.start(*project.cells())
    deadline = time.monotonic() + 300
    while len(project.stored_cells()) < there + finished_cells and process.poll() is None:
        assert time.monotonic() < deadline, "no cell came"
        time.sleep(0.002)
    time.sleep(delay)
    done = [path.with_name("provenance.json") for path in project.stored_cells()]
    texts = {path: path.read_text() for path in done}
    with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    await_end(project, seconds=60)
    return texts


def kill_scoring(project: Project, scores: str, workers: int, delay: float) -> None:
    """Start the score stage in a run and kill the stage alone, neither its workers nor the run.

    Args:
        project: a study whose cells are all there.
        scores: the score file that is to be made.
        workers: kill when the stage has so many processes of its own.
        delay: seconds to wait after that.
    """
    process = project.start(scores)
    deadline = time.monotonic() + 120
    stage = None
    while (stage is None or children(stage) < workers) and process.poll() is None:
        assert time.monotonic() < deadline, "the stage never had so many processes"
        found = (one for one in project.processes() if is_scoring(one))
        stage = stage or next(found, None)
        time.sleep(0.01)
    time.sleep(delay)
    if stage is not None:
        with contextlib.suppress(psutil.NoSuchProcess):  # it may have ended by itself
            stage.kill()
    process.wait(timeout=120)
    await_end(project, seconds=5)
    process.communicate()


def is_scoring(process: psutil.Process) -> bool:
    """Tell whether a process is the score stage itself, no shell or worker of it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cmdline()[1:3] == ["-m", "prunecal.score"]
    return False


def children(process: psutil.Process) -> int:
    """Count a process's children; a process that has ended has as many as anyone asks for."""
    try:
        return len(process.children())
    except psutil.NoSuchProcess:
        return sys.maxsize


def await_end(project: Project, seconds: float) -> None:
    """Wait until no process works in the project's folder any more."""
    deadline = time.monotonic() + seconds
    while (left := project.processes()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left, f"{left} outlived what started them"
