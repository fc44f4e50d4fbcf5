"""Turn disk errors of any library into one clear message."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from prunecal.core.errors import PrunecalError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
FORBIDDEN = (errno.EACCES, errno.EPERM)
BROKEN = (errno.EIO, errno.ESTALE)
REMEDY = "free some space or grant yourself write permission there, then run again"
IN_WORDS = re.compile(r"\bos error (\d+)\b")  # how libraries written in Rust report an OSError


class CannotWriteError(PrunecalError):
    """A location is full, read-only or not permitted, so no other file can be written there."""


def fault(error: BaseException) -> OSError | None:
    """Return the disk error that caused an exception of any library, or None if there is none.

    An error that is only reported as text becomes an OSError without a file name.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError):
            connects = seen.errno in FORBIDDEN and seen.filename is None  # to a host, not a file
            code = None if connects else seen.errno
        else:
            reported = IN_WORDS.search(str(seen))
            code = int(reported[1]) if reported else None
        if code in (*FULL, *FORBIDDEN, *BROKEN):
            return seen if isinstance(seen, OSError) else OSError(code, os.strerror(code))
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return None


def told(error: OSError) -> str:
    """Return one sentence about a disk error: the file, the reason, and the remedy."""
    name = error.filename
    where = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else "a file"
    reason = os.strerror(error.errno or 0)
    if error.errno in FULL:
        return f"{where} cannot be written ({reason}); {REMEDY}"
    if error.errno in FORBIDDEN:
        return f"{where} cannot be used ({reason}); grant yourself permission, then run again"
    return f"{where} cannot be used ({reason}); check the disk or the network drive, then run again"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name `path` in the error if the disk prevents the block from writing it.

    Raises:
        CannotWriteError: the disk is full or read-only, or writing is not permitted.
    """
    try:
        yield
    except PrunecalError:
        raise
    except Exception as error:
        cause = fault(error)
        if cause is None or _is_elsewhere(cause, path):
            raise
        reason = os.strerror(cause.errno or 0)
        raise CannotWriteError(f"{path} cannot be written ({reason}); {REMEDY}") from error


def _is_elsewhere(error: OSError, path: Path) -> bool:
    """Return whether an error names a file outside the folder of `path`: one that was read."""
    if not isinstance(error.filename, str | os.PathLike):
        return False
    named, folder = Path(error.filename).absolute(), path.absolute().parent
    return folder != named and folder not in named.parents and named not in folder.parents
