"""Data sets as the datasets library saves them to a folder (`Dataset.save_to_disk`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.core.errors import PrunecalError
from prunecal.sources.safe_paths import is_file, is_inside
from prunecal.storage.files import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

ENDING = ".arrow"


def saved_files(folder: Path, split: str) -> list[Path]:
    """Return the Arrow files of a saved data set, in order; none if the folder holds no such.

    Args:
        folder: a `Dataset` on disk, or a `DatasetDict` with a folder per split.
        split: which of its splits.

    Raises:
        PrunecalError: it lacks the split, or its list of files is malformed.
    """
    if is_file(folder / "dataset_dict.json"):
        if not is_file(folder / split / "state.json"):
            splits = ", ".join(sorted(path.parent.name for path in folder.glob("*/state.json")))
            raise PrunecalError(
                f"{folder} has no split {split!r} (it has: {splits}); correct `files:`, whose name "
                "begins with the split's"
            )
        folder = folder / split
    state = folder / "state.json"
    if not is_file(state):
        return []
    saved = read_json(state, remedy="save the data set again")
    entries = saved.get("_data_files") if isinstance(saved, dict) else None
    entries = entries if isinstance(entries, list) else []
    names = [entry.get("filename") if isinstance(entry, dict) else None for entry in entries]
    if not names or not all(isinstance(name, str) and is_inside(name) for name in names):
        raise PrunecalError(f"{state} lists no files of its folder; save the data set again")
    return [folder / name for name in names]


def saved_tables(path: Path, batch: int) -> Iterator[pa.Table]:
    """Yield a saved file's rows, `batch` at a time, from a memory map; images stay encoded.

    Raises:
        pyarrow.ArrowException: the file is damaged.
        OSError: it cannot be read.
    """
    from datasets import Dataset

    yield from Dataset.from_file(str(path)).with_format("arrow").iter(batch)
