"""Paths from settings or data: literal, to regular files, and never out of their folder."""

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from prunecal.core import disk_errors
from prunecal.core.errors import PrunecalError, brief, cut, encodable


def is_inside(name: str) -> bool:
    """Tell whether a relative name stays below its folder, without touching the file system."""
    kinds = (PurePosixPath(name), PureWindowsPath(name))  # a backslash is a way out on some systems
    leaves = any(path.is_absolute() or path.drive or ".." in path.parts for path in kinds)
    return bool(name) and "\0" not in name and encodable(name) and not leaves


def is_file(path: Path) -> bool:
    """Tell whether there is a regular file; none has a name that no file system takes."""
    try:
        return path.is_file()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def check_file(path: Path, remedy: str) -> None:
    """Refuse a path that does not lead to a regular file: a FIFO or a device never ends.

    Args:
        path: the file, or a link to it.
        remedy: what to do about it, for the message.

    Raises:
        PrunecalError: there is nothing, a link leads nowhere, or it is a folder, FIFO or device.
    """
    if is_file(path):
        return
    shown = cut(str(path))
    with reading(path):
        if path.is_symlink() and not path.exists():
            target = cut(str(path.readlink()))
            raise PrunecalError(f"{shown} is a link to {target}, which does not exist; {remedy}")
        if path.is_dir():
            raise PrunecalError(f"{shown} is a folder instead of a file; {remedy}")
        if path.exists():
            raise PrunecalError(f"{shown} is a pipe or device instead of a file; {remedy}")
    raise PrunecalError(f"{shown} is missing; {remedy}")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Tell in one sentence why a file could not be read, whatever the file system says.

    Raises:
        PrunecalError: the block met an OSError: the file vanished, is not this user's, is broken.
    """
    try:
        yield
    except OSError as error:
        if disk_errors.fault(error) is not None:
            raise  # told by its file and remedy on the way out
        reason = error.strerror or str(error)
        raise PrunecalError(
            f"{cut(str(path))} cannot be read ({cut(reason)}); restore the file or correct its path"
        ) from error


def real(path: Path) -> Path:
    """Return where links lead; where they lead in a circle, Path.resolve raises, this does not."""
    return Path(os.path.realpath(path))


def below(folder: Path, name: str, where: str) -> Path:
    """Return a file's path below a folder.

    Args:
        folder: from the user's settings.
        name: from the data.
        where: names the row of the data, for the message.

    Raises:
        PrunecalError: the path, or a link that it names, escapes the folder.
    """
    path = folder / name
    if not is_inside(name) or real(folder) not in real(path).parents:
        raise PrunecalError(
            f"{where} names the file {brief(name)}, which is outside {folder}; give the name of "
            f"a file in that folder, and put the file itself there instead of a link"
        )
    return path


def refuse_links_out(folder: Path, files: Iterable[Path]) -> None:
    """Refuse files of a folder that are links out of it, but for links to the Hub cache's blobs.

    Raises:
        PrunecalError: names the first one and its target.
    """
    home = real(folder)
    for path in files:
        target = real(path)
        is_blob = target.parent.name == "blobs" and target.parents[1] in home.parents
        if target.is_file() and home not in target.parents and not is_blob:
            raise PrunecalError(
                f"{cut(str(path))} is a link to {cut(str(target))}, outside of {folder}; put the "
                "file itself there"
            )
