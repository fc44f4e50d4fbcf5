"""Find stale temporary files of killed processes without touching files still being written.

A temporary file's hidden name holds its host and process (`files.part_prefix`): it is stale if its
writer on this host has exited. Of other hosts, and of a library's own hidden files, only the age is
known: they are stale once they have not changed for a day.
"""

import os
import platform
import re
import shutil
import time
from pathlib import Path

from prunecal.storage import files

OURS = re.compile(rf"\..+\.([^.]*)\.(\d+)\.\w{{8}}{re.escape(files.PART)}(\.checksum)?")
SAFETENSORS = re.compile(r"\.tmp\w{6}")  # under which that library writes a file before its name
OLD = 24 * 3600  # seconds


def stale_paths(folder: Path) -> list[Path]:
    """List the stale temporary files and folders below a folder, sorted."""
    paths: list[Path] = []
    for path in sorted(folder.rglob(".*")):
        if not any(parent in paths for parent in path.parents) and _is_stale(path):
            paths.append(path)
    return paths


def remove(folder: Path) -> int:
    """Remove what `stale_paths` lists and return how many those were."""
    paths = stale_paths(folder)
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return len(paths)


def _is_stale(path: Path) -> bool:
    ours = OURS.fullmatch(path.name)
    if not ours and not SAFETENSORS.fullmatch(path.name):
        return False
    if ours and ours[1] == platform.node().partition(".")[0]:
        return not _runs(int(ours[2]))
    try:
        return time.time() - path.lstat().st_mtime > OLD
    except FileNotFoundError:  # its writer has just finished it
        return False


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
