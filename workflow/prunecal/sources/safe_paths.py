"""File names that come from data: none may lead out of the folder that it belongs to."""

import errno
import os
from pathlib import Path, PurePosixPath, PureWindowsPath

from prunecal.core.errors import PrunecalError, brief


def is_inside(name: str) -> bool:
    """Tell whether a relative name stays below its folder, by its words alone."""
    kinds = (PurePosixPath(name), PureWindowsPath(name))  # a backslash is a way out on some systems
    leaves = any(path.is_absolute() or path.drive or ".." in path.parts for path in kinds)
    return bool(name) and "\0" not in name and not leaves


def is_file(path: Path) -> bool:
    """Tell whether a file is there; none has a name that no file system takes."""
    try:
        return path.is_file()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def real(path: Path) -> Path:
    """Return where links lead; where they lead in a circle, Path.resolve raises, this does not."""
    return Path(os.path.realpath(path))


def below(folder: Path, name: str, where: str) -> Path:
    """Return a file's path below a folder.

    Args:
        folder: given by the user.
        name: given by the data.
        where: names the place in the data, for the message.

    Raises:
        PrunecalError: the name, or a link that it names, leads out of the folder.
    """
    path = folder / name
    if not is_inside(name) or real(folder) not in real(path).parents:
        raise PrunecalError(
            f"{where} names the file {brief(name)}, which lies outside {folder}; give the name of "
            f"a file in that folder, and put the file itself there instead of a link"
        )
    return path
