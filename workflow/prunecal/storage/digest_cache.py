"""SHA-256 digests of large files, computed again only when a file may have changed.

Standard library only: rules ask for digests of local files while they are parsed.
"""

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from prunecal.storage.checksums import file_digest

NAME = ".digests"  # of a cache, beside the file that records what was digested
CLOCK_STEP = 2.0  # seconds; a file system's clock may not tell two changes within them apart
LINE = re.compile(r"([0-9a-f]{64})((?: -?\d+){5})")

Identity = tuple[int, ...]


def identity(path: Path) -> Identity:
    """Return what changes whenever a file's content is written or another file takes its name.

    The change time (ctime) cannot be set by `touch`, `cp -p`, `rsync` or `tar`.

    Raises:
        OSError: there is no such file.
    """
    status = path.stat()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class DigestCache:
    """Digests by `identity`, one per line of a text file; a lost or damaged line costs a rehash."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _known(self) -> dict[Identity, str]:
        try:
            text = self.path.read_text(encoding="ascii", errors="replace")
        except OSError:
            return {}  # none yet
        matches = filter(None, map(LINE.fullmatch, text.splitlines()))
        return {tuple(map(int, match[2].split())): match[1] for match in matches}

    def digest(self, path: Path) -> str:
        """Return a file's SHA-256, of its bytes as they are now.

        Raises:
            OSError: the file cannot be read.
        """
        before, start = identity(path), time.time()
        if before in self._known:
            return self._known[before]
        digest = file_digest(path)
        changed = max(before[3:]) / 1e9
        if identity(path) == before and changed < start - CLOCK_STEP:
            self._known[before] = digest
            # a folder that is full or read-only: the digest is computed again next time
            with contextlib.suppress(OSError), self.path.open("a", encoding="ascii") as file:
                file.write(f"{digest} {' '.join(map(str, before))}\n")
        return digest


def digest_of_all(paths: Sequence[str | os.PathLike], cache: Path) -> str:
    """Fingerprint the contents of files, in their order; an empty string if there are none.

    A file that cannot be read is left to the stage that reads it, which says so.
    """
    known, digests = DigestCache(cache), []
    if paths:
        with contextlib.suppress(OSError):  # as in `DigestCache.digest`
            cache.parent.mkdir(parents=True, exist_ok=True)
    for path in paths:
        try:
            digests.append(known.digest(Path(path)))
        except OSError:
            digests.append("unreadable")
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:16] if digests else ""
