"""One run at a time in a results folder, also where clones share it by a link.

Snakemake locks the folder in which it works, and so knows nothing of another clone's run.
"""

import fcntl
import os
from pathlib import Path


def lock(folder: Path) -> bool:
    """Lock a folder until this process ends.

    Returns:
        Whether it is locked; some network file systems lock no folders.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        return False
    return True  # the file stays open, and the lock with it
