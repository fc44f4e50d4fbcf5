"""Checksums of files and texts."""

import errno
import hashlib
from pathlib import Path


def file_digest(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        OSError: it cannot be read, or is a pipe or device, which may never end.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_digest(text: str) -> str:
    """Return the first 16 hexadecimal digits of a text's SHA-256, by which files name questions."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
