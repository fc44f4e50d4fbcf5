"""Content-addressed stores of finished cells and rankings, so that these can share a job.

A job covers several cells, because a process start and a model load cost more than a cell. Each
cell is filed under a key of all that determines it; a job computes what is missing and hands out
copies. So a killed job loses only the cell in flight, a change of one cell recomputes that cell,
and studies share what they have in common. Rankings are kept alike, in a store of their own.
"""

import hashlib
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from prunecal.core.cli import log
from prunecal.core.errors import RERUN, PrunecalError
from prunecal.storage import files
from prunecal.storage.checksums import file_digest

FILES = ("predictions.parquet", "provenance.json")
RANKING_FILES = ("ranking.safetensors", "provenance.json")
KEY_IN_PROVENANCE = "cell_key"


def _digest_name(result: str | Path) -> str:
    """Return the key of provenance under which a result's SHA-256 stands."""
    return f"{Path(result).stem}_sha256"


PREDICTIONS = _digest_name(FILES[0])


def cell_key(facts: Mapping[str, Any]) -> str:
    """Return the key of a cell: a digest of everything that determines its predictions."""
    return hashlib.sha256(files.canonical_json(facts).encode()).hexdigest()[:32]


class CellStore:
    """Finished cells in a folder, one subfolder per key.

    Args:
        root: the folder.
        names: of a cell's files: the result, and what accompanied it, which names key and result.
    """

    def __init__(self, root: Path, names: tuple[str, str] = FILES) -> None:
        self.root = root
        self.names = names

    def folder(self, key: str) -> Path:
        """Return where a cell's files are, or would be."""
        return self.root / key[:2] / key

    def has(self, key: str) -> bool:
        """Tell whether a cell is there and undamaged; a damaged one is removed with a warning."""
        folder = self.folder(key)
        if not all((folder / name).is_file() for name in self.names):
            return False
        damaged = [name for name in self.names if not files.undamaged(folder / name)]
        if damaged or _is_misplaced(folder, self.names):
            path = folder / (damaged or self.names)[0]
            log.warning("%s is damaged; it is computed again", path)
            shutil.rmtree(folder)
            return False
        return True

    def record(self, key: str) -> None:
        """Write the provenance of a result, which names only its key and digest."""
        result, accompanying = (self.folder(key) / name for name in self.names)
        note = {KEY_IN_PROVENANCE: key, _digest_name(result): file_digest(result)}
        files.write_json(accompanying, note)

    def hand_out(
        self,
        key: str,
        destination: Path,
        names: Iterable[str] | None = None,
        sources: Collection[Path] = (),
        code: str | None = None,
    ) -> None:
        """Copy a cell's files to their place among the results.

        Equal files that are there already are left, unless `sources` are to be recorded with them.

        Args:
            key: of the cell.
            destination: the folder of the copies.
            names: the files to copy, all of the cell's if none are named.
            sources: to be recorded, as for `files.atomic`.
            code: likewise.
        """
        for name in self.names if names is None else names:
            source, target = self.folder(key) / name, destination / name
            same = files.undamaged(target) and file_digest(target) == file_digest(source)
            if sources or not same:  # the record of equal bytes may name other sources
                with files.atomic(target, sources, code) as temporary:
                    shutil.copyfile(source, temporary)


def misplaced_cells(
    root: Path, damaged: Collection[Path] = (), names: tuple[str, str] = FILES
) -> list[Path]:
    """List the results that are filed under the key of another one.

    Args:
        root: the store.
        damaged: files about which nothing can be said.
        names: of a cell's files, as for `CellStore`.
    """
    bad = {path.parent for path in damaged}
    cells = [path for path in sorted(root.glob("*/*")) if path not in bad]
    whole = [path for path in cells if all((path / name).is_file() for name in names)]
    return [path / names[0] for path in whole if _is_misplaced(path, names)]


def _is_misplaced(folder: Path, names: tuple[str, str]) -> bool:
    """Tell whether a cell's files are of another cell, as after a copy to the wrong folder."""
    result, note = folder / names[0], files.read_object(folder / names[1])
    told = note.get(KEY_IN_PROVENANCE), note.get(_digest_name(result))
    return told != (folder.name, files.recorded(result))


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
    return _remove(root, lambda folder: folder.name in used)


def prune_rankings(root: Path, results: Path) -> tuple[int, int]:
    """Remove the rankings that no results folder holds; arguments and result as for `prune`."""
    name = RANKING_FILES[0]
    used = {files.recorded(path) for path in results.glob(f"[!.]*/*/*/{name}")}
    return _remove(root, lambda folder: files.recorded(folder / name) in used)


def _remove(root: Path, is_used: Callable[[Path], bool]) -> tuple[int, int]:
    """Remove the folders of a store that are not used; return how many are kept and removed."""
    folders = [path for path in root.glob("*/*") if path.is_dir()]
    unused = [path for path in folders if not is_used(path)]
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
