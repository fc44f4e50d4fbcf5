"""Half-written files that killed processes left behind, told from those that are being written.

A file is written under a hidden name that holds its host and process (`store.part_prefix`). One of
a process of this host that has ended is nobody's. Of other hosts, and of a library's own hidden
files, nothing is known but their age: what has not changed for a day is nobody's either.
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


def leftovers(folder: Path) -> list[Path]:
    """List the half-written files and folders below a folder that no process writes, sorted."""
    found: list[Path] = []
    for path in sorted(folder.rglob(".*")):
        if not any(parent in found for parent in path.parents) and _is_nobodys(path):
            found.append(path)
    return found


def remove(folder: Path) -> int:
    """Remove what `leftovers` lists and return how many those were."""
    found = leftovers(folder)
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return len(found)


def _is_nobodys(path: Path) -> bool:
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
