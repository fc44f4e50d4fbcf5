"""Faults of a disk, whoever meets them: full, read-only, not this user's, broken."""

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
REMEDY = "make room or give yourself the right to write there, then run again"
IN_WORDS = re.compile(r"\bos error (\d+)\b")  # how libraries written in Rust tell an OSError


class CannotWriteError(PrunecalError):
    """A place is full, read-only or not this user's: nothing else will be written there either."""


def fault(error: BaseException) -> OSError | None:
    """Return the disk's fault behind an exception, of whatever library, or None if there is none.

    A fault that is only told in words comes as an OSError without a file name.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError):
            connects = seen.errno in FORBIDDEN and seen.filename is None  # to a host, not a file
            code = None if connects else seen.errno
        else:
            told = IN_WORDS.search(str(seen))
            code = int(told[1]) if told else None
        if code in (*FULL, *FORBIDDEN, *BROKEN):
            return seen if isinstance(seen, OSError) else OSError(code, os.strerror(code))
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return None


def told(found: OSError) -> str:
    """Return one sentence about a fault: the file, what is wrong with it, and the remedy."""
    name = found.filename
    where = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else "a file"
    reason = os.strerror(found.errno or 0)
    if found.errno in FULL:
        return f"{where} cannot be written ({reason}); {REMEDY}"
    if found.errno in FORBIDDEN:
        return f"{where} cannot be used ({reason}); give yourself the right to, then run again"
    return f"{where} cannot be used ({reason}); check the disk or the network drive, then run again"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name `path` where the disk hinders a block that writes it, by way of whatever library.

    Raises:
        CannotWriteError: the disk is full or read-only, or the folder is not this user's.
    """
    try:
        yield
    except PrunecalError:
        raise
    except Exception as error:
        found = fault(error)
        if found is None or _is_elsewhere(found, path):
            raise
        reason = os.strerror(found.errno or 0)
        raise CannotWriteError(f"{path} cannot be written ({reason}); {REMEDY}") from error


def _is_elsewhere(found: OSError, path: Path) -> bool:
    """Tell whether a fault names a file outside the folder of `path`, one that was to be read."""
    if not isinstance(found.filename, str | os.PathLike):
        return False
    named, folder = Path(found.filename).absolute(), path.absolute().parent
    return folder != named and folder not in named.parents and named not in folder.parents
