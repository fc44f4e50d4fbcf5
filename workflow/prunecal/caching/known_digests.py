"""Digests of code from earlier runs, kept for as long as every byte of the code stays the same.

To derive the digests of all stages takes most of a second, and every run of Snakemake, each
job on a cluster included, needs them.
"""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path


class KnownDigests:
    """Digests of one state of the code, in a JSON file; without it they are derived again.

    Args:
        path: the file; it is replaced when the code has changed.
        root: the folder whose files are the code.
    """

    def __init__(self, path: Path, root: Path) -> None:
        self._path = path
        self._code = _contents(root)
        self._digests: dict[str, str] = {}
        self._complete = True  # what the file holds, of what is known
        with contextlib.suppress(OSError, ValueError):  # none yet, or damaged
            known = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(known, dict) and known.get("code") == self._code:
                self._digests = dict(known["digests"])

    def digest(self, name: str, derive: Callable[[], str]) -> str:
        """Return the digest of that name, derived only if it is not known yet."""
        if name not in self._digests:
            self._digests[name] = derive()
            self._complete = False
        return self._digests[name]

    def keep(self) -> None:
        """Write the file, unless it holds every digest already."""
        if not self._complete:
            self._write()
            self._complete = True

    def _write(self) -> None:
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        text = json.dumps({"code": self._code, "digests": self._digests}, indent=1)
        # a folder that is full or read-only: they are derived again next time
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(text, encoding="utf-8")
            part.replace(self._path)


def _contents(root: Path) -> str:
    """Fingerprint all files below a folder, and the Python that reads them."""
    digest = hashlib.sha256(sys.version.encode())
    for path in sorted(root.rglob("*")):
        if path.suffix != ".pyc" and path.is_file():
            content = path.read_bytes()
            digest.update(f"\n{path.relative_to(root)} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()
