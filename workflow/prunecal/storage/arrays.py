"""Safetensors files of the project's arrays: what each may hold, and facts in their metadata.

An array's name says its type and shape, as a column's name does in `schemas`; with an array
`tokens`, images differ in their number of tokens, which lie one image after another.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecal.core.errors import RERUN, PrunecalError
from prunecal.storage import files, schemas

if TYPE_CHECKING:
    import numpy as np
    import torch

FLOATS = ("F32", "F64")
ARRAYS = {  # the part of a name before any "/": dimensions and types
    "features": (3, ("F16", "BF16", *FLOATS)),
    "saliency": (2, FLOATS),
    "tiles": (2, ("I32",)),
    "order": (2, ("I16", "I32", "I64")),
    "coverage": (2, FLOATS),
    "kept": (2, ("I16",)),
    "covered": (1, FLOATS),
    "value": (2, FLOATS),
    "draws": (3, ("F32",)),
    "bins_filled": (2, ("I64",)),
    "largest_bin_share": (2, FLOATS),
}
PER_IMAGE = {"features", "saliency", "tiles", "order", "coverage"}  # [images, tokens, …]


class Arrays:
    """An open safetensors file.

    Attributes:
        path: of the file.
        facts: from its metadata.

    Raises:
        PrunecalError: its facts, or an array's type or shape, are not what their names say.
    """

    def __init__(self, path: Path | str, file: Any):
        self.path, self._file = path, file
        texts: dict[str, str] = file.metadata() or {}
        self.facts = schemas.Facts(
            path, {name: schemas.read_json(path, text) for name, text in texts.items()}
        )
        self._names = set(file.keys())
        self._counts = None  # tokens of each image, if they differ
        if "tokens" in self._names:
            self._check("tokens")
            self._counts = self.get_tensor("tokens").tolist()
            if min(self._counts) < 1:
                raise PrunecalError(f"{path} has an image without tokens; {RERUN}")
        for name in self._names:
            self._check(name)
        axis = 1 if self._counts is None else 0
        tokens = {self._shape(name)[axis] for name in self._names if _stem(name) in PER_IMAGE}
        if len(tokens) > 1 or not tokens <= {sum(self._counts or tokens)}:
            raise PrunecalError(f"{path} has arrays with different numbers of tokens; {RERUN}")

    def keys(self) -> list[str]:
        """Return the names of all arrays."""
        return sorted(self._names)

    def get_tensor(self, name: str) -> Any:
        """Return a whole array.

        Raises:
            PrunecalError: there is no such array, or an order of tokens names one twice.
        """
        values = self._of("get_tensor", name)
        if name == "order":
            _check_orders(self.path, values, self._counts)
        if _stem(name) == "kept" and self._counts is None:
            check_kept(self.path, values)
        return values

    def get_slice(self, name: str) -> Any:
        """Return an array of which slices are read.

        Raises:
            PrunecalError: there is no such array.
        """
        return self._of("get_slice", name)

    def _of(self, how: str, name: str) -> Any:
        if name not in self._names:
            raise PrunecalError(f"{self.path} lacks the array {name!r}; {RERUN}")
        return getattr(self._file, how)(name)

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(name).get_shape())

    def _check(self, name: str) -> None:
        dimensions, kinds = ARRAYS.get(_stem(name), (None, ()))
        if dimensions is None:
            return
        shape, kind = self._shape(name), self._file.get_slice(name).get_dtype()
        facts, rows = self.facts, shape[:1]
        if name.startswith(("value/", "draws/", "bins_filled", "largest_bin_share")):
            rows = (len(facts["cells"]), len(facts["subsets"]))
        elif self._counts is not None and _stem(name) == "kept":
            dimensions, rows = 1, ()  # how many of each image, the budget in the name tells
        elif self._counts is not None and _stem(name) in PER_IMAGE:
            dimensions, rows = dimensions - 1, (sum(self._counts),)
        elif "image_id" in facts:
            rows = (len(facts["image_id"]),)
        if len(shape) != dimensions or shape[: len(rows)] != rows or 0 in shape:
            fault = f"of shape {list(shape)}"
        elif kind not in kinds:
            fault = f"of type {kind}"
        else:
            return
        raise PrunecalError(
            f"{self.path} has an array {name!r} {fault}, which does not fit; {RERUN}"
        )


def open_arrays(path: Path | str, framework: str = "numpy") -> Arrays:
    """Open a safetensors file for reading by memory map.

    Raises:
        PrunecalError: the file is missing or damaged, or an array or a fact is not what its name
            says.
    """
    from safetensors import SafetensorError, safe_open

    files.note_read(path)
    try:
        return Arrays(path, safe_open(path, framework=framework))
    except (OSError, SafetensorError) as error:
        raise files.unreadable(path, "safetensors", error) from error


def write_arrays(
    path: Path | str, arrays: Mapping[str, "np.ndarray"], facts: Any, sources: Iterable[Path] = ()
) -> None:
    """Write numpy arrays as safetensors, each fact a JSON text in its metadata, atomically."""
    import numpy as np
    from safetensors.numpy import save_file

    # the library writes the memory of a transposed or sliced array unchanged, without warning
    arrays = {name: np.asarray(values, order="C") for name, values in arrays.items()}
    _write_safetensors(save_file, path, arrays, facts, sources)


def write_tensors(
    path: Path | str,
    tensors: Mapping[str, "torch.Tensor"],
    facts: Any,
    sources: Iterable[Path] = (),
) -> None:
    """Write torch tensors (bfloat16 too) as `write_arrays` writes arrays."""
    from safetensors.torch import save_file

    _write_safetensors(save_file, path, tensors, facts, sources)


def check_kept(path: Path | str, values: Any) -> None:
    """Refuse kept tokens, int [I, K], of which an image has one twice."""
    import numpy as np

    rows = np.sort(np.asarray(values), axis=1)
    if (rows[:, 0] < 0).any() or (np.diff(rows, axis=1) == 0).any():
        raise PrunecalError(f"{path} has a ranking that keeps a token twice; {RERUN}")


def _check_orders(path: Path | str, values: Any, counts: list[int] | None) -> None:
    """Refuse orders of tokens in which a token is missing, int [I, N] or [T] with `counts`."""
    import numpy as np

    orders = np.asarray(values)
    if counts is None:
        whole = (np.sort(orders, axis=1) == np.arange(orders.shape[1])).all()
    else:
        images = np.split(orders, np.cumsum(counts)[:-1])
        whole = all((np.sort(order) == np.arange(len(order))).all() for order in images)
    if not whole:
        raise PrunecalError(f"{path} has a ranking that lacks a token of its image; {RERUN}")


def _stem(name: str) -> str:
    return name.partition("/")[0]


def _write_safetensors(
    save_file: Callable[..., None],
    path: Path | str,
    arrays: Mapping[str, Any],
    facts: Any,
    sources: Iterable[Path],
) -> None:
    metadata = {key: files.canonical_json(value) for key, value in facts.items()}
    with files.atomic(path, sources) as temporary:
        save_file(dict(arrays), temporary, metadata=metadata)
        _sort_metadata(temporary)


def _sort_metadata(path: Path) -> None:
    """Put a safetensors header's metadata in order: the library writes it in random order."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        file.seek(8)
        file.write(text.ljust(length))
