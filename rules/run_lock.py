"""One run at a time in a results folder, also where clones share it by a link.

Snakemake locks the folder in which it works, and so knows nothing of another clone's run.
"""

import fcntl
import os
from pathlib import Path


def lock(folder: Path) -> bool:
    """Lock a folder until this process ends.

    Returns:
        Whether it is locked: some network file systems lock no folders, and of one that cannot be
        made the jobs say so.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)  # stays open, and the lock with it
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True
