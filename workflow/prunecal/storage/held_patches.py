"""Which patches of an image are left after the last stage of a strategy inside the decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.storage import files

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

KEPT, MERGED = "kept_patches", "merged_patches"  # columns of predictions, lists per question


class HeldPatches:
    """The patches that each question of a cell holds, as its predictions say.

    Args:
        path: predictions.parquet.

    Attributes:
        images: the image of each question.

    Raises:
        PrunecalError: the file is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        table = files.read_table(path, ["image_id"], [KEPT, MERGED])
        self.images: list[str] = table["image_id"].to_pylist()
        self._columns = {
            value: table[name]
            for name, value in ((MERGED, 0.5), (KEPT, 1.0))
            if name in table.column_names
        }

    def __bool__(self) -> bool:
        """Tell whether the cell has them: of strategies inside the decoder alone."""
        return bool(self._columns)

    def of(self, question: int, tokens: int) -> np.ndarray:
        """Return how a question's patches are kept, float [N], as `lineage.Ranking.held` does.

        Args:
            question: its row.
            tokens: patches of its image, N.
        """
        import numpy as np

        held = np.zeros(tokens)
        for value, column in self._columns.items():
            held[column[question].as_py()] = value
        return held
