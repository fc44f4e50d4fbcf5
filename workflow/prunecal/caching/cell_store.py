"""A content-addressed store of finished cells, so that cells can share a job and survive it.

A job covers several cells, because a process start and a model load cost more than a cell. Each
cell is filed under a key of all that determines it; a job computes what is missing and hands out
copies. So a killed job loses only the cell in flight, a change of one cell recomputes that cell,
and studies share what they have in common.
"""

import hashlib
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from prunecal.core.cli import log
from prunecal.core.errors import RERUN, PrunecalError
from prunecal.storage import files
from prunecal.storage.checksums import file_digest

FILES = ("predictions.parquet", "provenance.json")
KEY_IN_PROVENANCE = "cell_key"
PREDICTIONS = "predictions_sha256"  # in provenance too


def cell_key(facts: Mapping[str, Any]) -> str:
    """Return the key of a cell: a digest of everything that determines its predictions."""
    return hashlib.sha256(files.canonical_json(facts).encode()).hexdigest()[:32]


class CellStore:
    """Finished cells in a folder, one subfolder per key."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path:
        """Return where a cell's files are, or would be."""
        return self.root / key[:2] / key

    def has(self, key: str) -> bool:
        """Tell whether a cell is there and undamaged; a damaged one is removed with a warning."""
        folder = self.folder(key)
        if not all((folder / name).is_file() for name in FILES):
            return False
        damaged = [name for name in FILES if not files.undamaged(folder / name)]
        if damaged or _is_misplaced(folder):
            log.warning("%s is damaged; the cell is computed again", folder / (damaged or FILES)[0])
            shutil.rmtree(folder)
            return False
        return True

    def hand_out(self, key: str, destination: Path) -> None:
        """Copy a cell's files to their place among the results, unless they are there already."""
        for name in FILES:
            source, target = self.folder(key) / name, destination / name
            if not files.undamaged(target) or file_digest(target) != file_digest(source):
                with files.atomic(target) as temporary:
                    shutil.copyfile(source, temporary)


def misplaced_cells(root: Path, damaged: Collection[Path] = ()) -> list[Path]:
    """List the predictions of another cell than that of the key under which they are filed.

    Args:
        root: the store.
        damaged: files about which nothing can be said.
    """
    bad = {path.parent for path in damaged}
    cells = [path for path in sorted(root.glob("*/*")) if path not in bad]
    whole = [path for path in cells if all((path / name).is_file() for name in FILES)]
    return [path / FILES[0] for path in whole if _is_misplaced(path)]


def _is_misplaced(folder: Path) -> bool:
    """Tell whether a cell's files are of another cell, as after a copy to the wrong folder."""
    note = files.read_object(folder / FILES[1])
    predictions = files.recorded(folder / FILES[0])
    return (note.get(KEY_IN_PROVENANCE), note.get(PREDICTIONS)) != (folder.name, predictions)


def prune(root: Path, results: Path) -> tuple[int, int]:
    """Remove the cells that no results folder uses.

    Args:
        root: the store.
        results: folder below which finished cells' provenance.json files name their keys.

    Returns:
        Cells kept and cells removed.

    Raises:
        PrunecalError: a result does not say which cell it is; nothing is removed then.
    """
    used = {
        _key_of(path)
        for path in results.glob("*/*/*/*/provenance.json")
        if root not in path.parents
    }
    folders = [path for path in root.glob("*/*") if path.is_dir()]
    unused = [path for path in folders if path.name not in used]
    for path in unused:
        shutil.rmtree(path)
    return len(folders) - len(unused), len(unused)


def _key_of(provenance: Path) -> str:
    facts = files.read_object(provenance)
    if KEY_IN_PROVENANCE not in facts:
        raise PrunecalError(
            f"{provenance} lacks {KEY_IN_PROVENANCE!r}, so unused cells cannot be told; {RERUN}"
        )
    return facts[KEY_IN_PROVENANCE]
