"""Arrays with a part for each image, whose images may have different numbers of tokens.

If all images have the same number of tokens, an array is [I, N, ...]. Otherwise its first two axes
are flattened, [T, ...], and the array `tokens` int32 [I] has the number of tokens of each image.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prunecal.storage.arrays import Arrays

TOKENS, GRIDS, TILES = "tokens", "grids", "tiles"


class PerImage:
    """An array of a file, read image by image, so that it is never in memory as a whole.

    Args:
        file: an open safetensors file with this array.
        name: of the array.

    Attributes:
        counts: the number of tokens of each image.
    """

    def __init__(self, file: Arrays, name: str) -> None:
        self._rows = file.get_slice(name)
        shape = self._rows.get_shape()
        self._flat = TOKENS in file.keys()  # noqa: SIM118  not a mapping
        self.counts: list[int] = [shape[1]] * shape[0] if not self._flat else []
        if self._flat:
            self.counts = list(map(int, file.get_tensor(TOKENS).tolist()))
        self._ends = list(accumulate(self.counts))

    def __len__(self) -> int:
        return len(self.counts)

    def __iter__(self) -> Iterator[Any]:
        return (self[image] for image in range(len(self)))

    def __getitem__(self, image: int) -> Any:
        """Return the part of one image, [N, ...]."""
        if not self._flat:
            return self._rows[image : image + 1][0]
        return self._rows[self._ends[image] - self.counts[image] : self._ends[image]]


class Flat(NamedTuple):
    """Parts of images put together, and the number of tokens of each if they differ."""

    values: Any
    tokens: Any


def together(parts: Sequence[Any]) -> Flat:
    """Return arrays [N, ...] of images as they are stored.

    Returns:
        [I, N, ...] and None if all have the same number of tokens, else [T, ...] and int32 [I].
    """
    import numpy as np

    counts = [len(part) for part in parts]
    if len(set(counts)) == 1:
        return Flat(np.stack(parts), None)
    return Flat(np.concatenate(parts), np.array(counts, np.int32))


def grids_of(file: Arrays, images: int) -> list[tuple[tuple[int, int], ...]]:
    """Return the rows and columns of each image's grids of patches; none if they are one square."""
    grids: list[list[tuple[int, int]]] = [[] for _ in range(images)]
    if GRIDS in file.keys():  # noqa: SIM118  not a mapping
        for image, rows, columns in file.get_tensor(GRIDS).tolist():
            grids[image].append((rows, columns))
    return list(map(tuple, grids))


def starts_of_weights(kept: Sequence[int], tokens: Sequence[int]) -> list[int]:
    """Return where the weights [K, N + 1] of each image begin in those of all, and where they end.

    Args:
        kept: merged tokens of each image, K.
        tokens: patches of each image, N; source 0 is CLS.
    """
    sizes = [number * (count + 1) for number, count in zip(kept, tokens, strict=True)]
    return [0, *accumulate(sizes)]
