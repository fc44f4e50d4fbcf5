"""Kill a run without warning while it infers."""

import contextlib
import os
import signal
import time
from pathlib import Path

from small_project import Project


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
    left = project.processes()
    while left and time.monotonic() < deadline:
        time.sleep(0.01)
        left = project.processes()
    assert not left, "a process outlived its group"
    return texts
