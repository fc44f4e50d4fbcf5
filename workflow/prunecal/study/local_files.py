"""The local files that settings name, as inputs of rules: a changed one is read again."""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from prunecal.core import plugins
from prunecal.core.errors import PrunecalError, brief
from prunecal.core.parameters import local_paths
from prunecal.study.data_settings import Dataset

MOST_FILES = 500_000  # below one path; a data set of images has fewer, the root of a disk has more


def local_files(paths: Iterable[Path | str]) -> list[str]:
    """List the files at local paths, folders expanded, hidden files and folders left out.

    What is missing or cannot be read is left to the stage, which names it and the remedy.

    Raises:
        PrunecalError: no file system takes a path, one holds braces, which Snakemake would take
            for a wildcard, or a folder holds more files than any data set.
    """
    listed = []
    for path in (Path(one).expanduser() for one in paths):
        _refuse_impossible(path)
        if path.is_dir():
            listed += _below(path)
        elif path.is_file():
            listed.append(str(path))
    for file in listed:
        if "{" in file or "}" in file:
            raise PrunecalError(
                f"the path {brief(file)} holds braces, which Snakemake takes for a wildcard; "
                "rename it"
            )
    return listed


def _refuse_impossible(path: Path) -> None:
    """Refuse a path that no file system takes, of which a stage's command line could not tell."""
    fault: object = None
    try:
        path.lstat()
    except ValueError as error:  # a NUL, or half of a surrogate pair
        fault = error
    except OSError as error:
        fault = error.strerror if error.errno == errno.ENAMETOOLONG else None
    if fault:
        raise PrunecalError(f"the path {brief(str(path))} is impossible ({fault}); correct it")
    place = Path(os.path.realpath(path))
    if place == Path("/") or {Path("/proc"), Path("/sys")} & {place, *place.parents}:
        raise PrunecalError(
            f"the path {brief(str(path))} leads to a folder of the operating system, some of whose "
            "files have no end; give the folder that holds the data set or the model alone"
        )


def _below(folder: Path) -> list[str]:
    files: list[str] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (os.path.join(place, name) for name in sorted(names) if not name.startswith("."))  # noqa: PTH118  as fast as a plan must be
        files += [path for path in paths if os.path.isfile(path)]  # noqa: PTH113
        if len(files) > MOST_FILES:
            raise PrunecalError(
                f"the folder {brief(str(folder))} holds more than {MOST_FILES:,} files; give the "
                "folder that holds the data set or the model alone"
            )
    return files


def named_paths(dataset: Dataset) -> list[Path]:
    """List the local paths that a data set's settings name."""
    params = plugins.load("datasets", dataset.loader).Params(**(dataset.model_extra or {}))
    return [path for _, value in params for path in local_paths(value)]
