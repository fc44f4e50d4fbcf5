"""Write arrays of many images as safetensors without holding them in memory.

What an array's shape is, is known only after the last image, and the header of the file comes
first; so the values are collected in files beside the final one and copied behind the header.
The bytes are those that `arrays.write_tensors` writes of the same arrays.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from prunecal.core import disk_errors
from prunecal.storage import files
from prunecal.storage.per_image import TOKENS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import torch

# safetensors' names of types, in the order in which it puts arrays of several types
KINDS = {"int32": "I32", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}
ORDER = ["F64", "F32", "I32", "BF16", "F16"]


class Spool:
    """Collect arrays [N, ...] image by image, then write them.

    Args:
        path: the safetensors file to write; the values are collected beside it.

    Raises:
        CannotWriteError: as `files.atomic`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._spooled: dict[str, BinaryIO] = {}
        self._counts: dict[str, list[int]] = {}
        self._kinds: dict[str, tuple[str, list[int]]] = {}

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._spooled.values():
            file.close()

    def add(self, name: str, values: torch.Tensor) -> None:
        """Add the part of one image, [N, ...]."""
        import torch

        if name not in self._spooled:
            with disk_errors.writing(self.path):
                self._spooled[name] = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115
            self._counts[name] = []
            kind = KINDS[str(values.dtype).removeprefix("torch.")]
            self._kinds[name] = kind, list(values.shape[1:])
        self._counts[name].append(len(values))
        with disk_errors.writing(self.path):
            data = values.detach().contiguous().cpu().reshape(-1).view(torch.uint8)
            self._spooled[name].write(data.numpy().tobytes())

    def write(
        self, facts: Mapping[str, Any], sources: Iterable[Path], arrays: Mapping[str, torch.Tensor]
    ) -> list[int]:
        """Write the file, with further small arrays, and return the number of tokens per image."""
        import torch

        counts = next(iter(self._counts.values()))
        equal = len(set(counts)) == 1
        if not equal:
            arrays = {**arrays, TOKENS: torch.tensor(counts, dtype=torch.int32)}
        lead = [len(counts), counts[0]] if equal else [sum(counts)]
        shapes = {name: (kind, [*lead, *rest]) for name, (kind, rest) in self._kinds.items()}
        for name, values in arrays.items():
            self.add(name, values)
            shapes[name] = self._kinds[name][0], list(values.shape)
        names = sorted(shapes, key=lambda name: (ORDER.index(shapes[name][0]), name))
        header: dict[str, Any] = {
            "__metadata__": {key: files.canonical_json(facts[key]) for key in sorted(facts)}
        }
        start = 0
        for name in names:
            end = start + self._spooled[name].tell()
            kind, shape = shapes[name]
            header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
            start = end
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        text = text.ljust(-(-len(text) // 8) * 8)
        with files.atomic(self.path, sources) as temporary, temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in names:
                self._spooled[name].seek(0)
                shutil.copyfileobj(self._spooled[name], file)
        return counts
