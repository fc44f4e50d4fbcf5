"""Which versions of libraries made the cells, where several did, or others than are installed."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from typing import TYPE_CHECKING

from prunecal.caching import lineage
from prunecal.core import versions
from prunecal.core.errors import counted
from prunecal.storage import files

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

LIBRARIES = ("torch", "transformers")  # whose versions may change a cell's logits
QUANTIZERS = ("torchao", "bitsandbytes")  # likewise, of cells of quantized models alone


def mixed_versions(cells: Iterable[Mapping[str, str]]) -> list[str]:
    """Say for each library which versions made cells that are compared, if there are several.

    Args:
        cells: of each cell, the version of each library that made it.
    """
    cells, remarks = list(cells), []
    for library in (*LIBRARIES, *QUANTIZERS):
        counts = Counter(
            made.get(library, "unknown")
            for made in cells
            if library in LIBRARIES or library in made
        )
        if len(counts) > 1:
            numbers = ", ".join(
                f"{number} ({counted(n, 'cell')})" for number, n in sorted(counts.items())
            )
            remarks.append(
                f"The cells were made by {len(counts)} versions of {library}: {numbers}; "
                "differences between cells may come from that"
            )
    return remarks


def version_remarks(results: Path) -> list[str]:
    """Say which versions made the cells below a folder, if several did or others than here."""
    made = [
        made for path in results.glob(lineage.CELLS_BELOW) if (made := _versions(path)) is not None
    ]
    other = len(cells_of_other_versions(results))
    here = " and ".join(f"{library} {versions.installed(library)}" for library in LIBRARIES)
    installed = [
        f"{other} of {len(made)} cells were made by other versions than {here}, installed here"
    ]
    return mixed_versions(made) + (installed if other else [])


def cells_of_other_versions(results: Path, pattern: str = lineage.CELLS_BELOW) -> list[Path]:
    """List the folders of cells made by other versions of libraries than are installed.

    A library that quantizes and is not installed here has no version that could be another.
    """
    here = {library: versions.installed(library) for library in LIBRARIES}
    here |= {library: versions.installed(library) for library in QUANTIZERS if find_spec(library)}
    return [
        path.parent
        for path in sorted(results.glob(pattern))
        if (made := _versions(path)) is not None
        and any(
            made.get(library) != here.get(library)
            for library in here
            if library in LIBRARIES or library in made
        )
    ]


def _versions(provenance: Path) -> dict[str, str] | None:
    """Return the versions that made a cell; None of one that was imported."""
    record = files.read_object(provenance)
    return None if lineage.IMPORTED in record else record.get("versions", {})
