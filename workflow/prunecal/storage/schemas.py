"""What the project's files hold: types of columns, shapes of arrays, facts in their metadata.

A name means the same in every file, so one table each says what may stand under it. What was
damaged, or written by another program, is refused here by its file's name, before a stage trips
over it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from prunecal.core.errors import RERUN, PrunecalError, cut

if TYPE_CHECKING:
    import pyarrow as pa

MOST_TOKENS = 32_767  # a token's place among an image's visual tokens is stored as int16

TEXT, TEXTS = "text", "lists of texts"
WHOLE, NUMBERS, NUMBER_LISTS = "whole numbers", "numbers", "lists of numbers"
WHOLE_LISTS = "lists of whole numbers"
BYTES = "bytes"
STATED = "confidence"  # metadata that say how a confidence without logits came about
COLUMNS = {
    "question_id": TEXT,
    "image_id": TEXT,
    "subset": TEXT,
    "text": TEXT,
    "options": TEXTS,
    "label": WHOLE,
    "logits": NUMBER_LISTS,
    "log_normaliser": NUMBERS,
    "top_token": WHOLE,
    "spelling_logits": NUMBER_LISTS,
    "letter_logits": NUMBER_LISTS,
    "n_visual": WHOLE,
    "coverage": NUMBERS,
    "kept_patches": WHOLE_LISTS,
    "merged_patches": WHOLE_LISTS,
    "answers": TEXTS,
    "answer": TEXT,
    "answer_tokens": WHOLE,
    "prediction": WHOLE,
    "confidence": NUMBERS,
    "bytes": BYTES,
}
# null throughout in cells of another program, logits where it has none
NULLABLE = {"log_normaliser", "top_token", "spelling_logits", "letter_logits", "logits"}
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

Count = Annotated[int, Field(ge=0, lt=2**53)]
Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
Setting = bool | Annotated[int, Field(gt=-(2**63), lt=2**64)] | FiniteFloat | str | None


# A field may be missing, which `Facts` reports when it is read; null is refused
ABSENT: Any = None


class _Known(BaseModel):
    """Metadata of which some fields are known; no type is made to fit."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Cell(_Known):
    strategy: str
    family: str
    parameters: dict[str, Setting]
    budget: (
        Annotated[int, Field(ge=0, le=MOST_TOKENS)]
        | Annotated[str, Field(pattern=r"^(all|\d{1,9}(\.\d{1,99})?%)$")]
    )


class _PlacedCell(_Cell):
    model: str
    dataset: str


class _Subset(_Known):
    name: str
    n: Count
    n_images: Count


class _Baselines(_Known):
    chance: FiniteFloat
    constant: FiniteFloat
    answer: str


class _File(_Known):
    name: Annotated[str, Field(min_length=1, max_length=255)]
    size: Count
    sha256: str


class Questions(_Known):
    """Metadata of questions and images."""

    dataset: str = ABSENT
    revision: str | None = ABSENT
    edition: str = ABSENT
    max_new_tokens: Annotated[int, Field(ge=1)] = ABSENT


class Features(_Known):
    """Metadata of visual tokens."""

    image_id: Annotated[list[str], Field(min_length=1)] = ABSENT
    model: str = ABSENT


class Ranking(_Known):
    """Metadata of a strategy's orders."""

    image_id: Annotated[list[str], Field(min_length=1)] = ABSENT
    family: str = ABSENT
    parameters: dict[str, Setting] = ABSENT
    question: list[str] = ABSENT


class Predictions(_Known):
    """Metadata of a cell's logits."""

    cell: _PlacedCell = ABSENT
    family: str = ABSENT
    seed: Annotated[int, Field(ge=0)] | None = ABSENT
    visual_tokens: Tokens | None = ABSENT
    tokens_per_layer: FiniteFloat | None = ABSENT
    option_tokens: dict[str, Count] = ABSENT
    option_spellings: dict[str, list[Count]] = ABSENT
    confidence: str = ABSENT  # of a cell without option scores: its kind
    cut_off: Count = ABSENT
    imported: dict[str, Any] = ABSENT  # of a cell from elsewhere: what is known of its scores


class Scores(_Known):
    """Metadata of a task's metrics and their replicates."""

    model: str = ABSENT
    dataset: str = ABSENT
    cells: list[_Cell] = ABSENT
    subsets: list[_Subset] = ABSENT
    baselines: list[_Baselines] = ABSENT
    metrics: list[str] = ABSENT
    resamples: dict[str, Annotated[int, Field(ge=1)]] = ABSENT
    bins: Annotated[int, Field(ge=2, lt=2**31)] = ABSENT
    dtype: str | None = ABSENT
    quantization: str = ABSENT
    group_size: Annotated[int, Field(ge=1)] = ABSENT
    model_digest: str | None = ABSENT
    seed: Annotated[int, Field(ge=0)] | None = ABSENT


class Manifest(_Known):
    """What a model's weights are."""

    family: str = ABSENT
    revision: str | None = ABSENT
    digest: str = ABSENT
    files: list[_File] = ABSENT


class Provenance(_Known):
    """What accompanied a cell."""

    seconds: FiniteFloat = ABSENT
    peak_memory_mb: Count = ABSENT
    peak_gpu_memory_mb: Count | None = ABSENT
    versions: dict[str, str] = ABSENT
    made_from: dict[str, str | None] = ABSENT


KINDS: dict[str, type[_Known]] = {
    "questions.parquet": Questions,
    "images.parquet": Questions,
    "features.safetensors": Features,
    "ranking.safetensors": Ranking,
    "predictions.parquet": Predictions,
    "manifest.json": Manifest,
    "provenance.json": Provenance,
    ".safetensors": Scores,  # named after their data sets
}


def kind(path: Path | str) -> type[BaseModel]:
    """Return the model of a file's metadata by the file's name; other files may hold any."""
    path = Path(path)
    return KINDS.get(path.name) or KINDS.get(path.suffix, _Known)


class Facts(dict[str, Any]):
    """A file's metadata; reading a missing field names the field and the file."""

    def __init__(self, path: Path | str, given: Any):
        if not isinstance(given, dict):
            raise PrunecalError(f"{path} has no metadata as `name: value`; {RERUN}")
        try:
            kind(path).model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            place = cut(", ".join(map(str, first["loc"])))
            raise PrunecalError(
                f"{path} has metadata that does not fit ({place}: {first['msg']}); {RERUN}"
            ) from error
        super().__init__(given)
        self.path = path

    def __missing__(self, name: str) -> Any:
        raise PrunecalError(f"{self.path} lacks the metadata field {name!r}; {RERUN}")


def read_json(path: Path | str, text: str | bytes, remedy: str = RERUN) -> Any:
    """Return what a JSON text of a file says; `remedy` is for the message.

    Raises:
        PrunecalError: it is not JSON, or too large to be read.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PrunecalError(f"{path} cannot be read as JSON ({error}); {remedy}") from error


def check_columns(path: Path | str, table: "pa.Table") -> None:
    """Refuse a table in which a known column holds something else, or nothing, in some row.

    Columns in `NULLABLE` may hold nothing in any row at all.

    Raises:
        PrunecalError: names the column.
    """
    import pyarrow.compute as pc

    for name in set(COLUMNS) & set(table.column_names):
        column = table.column(name)
        if name in NULLABLE and column.null_count == len(column):
            continue
        if not holds(column.type, COLUMNS[name]):
            raise PrunecalError(
                f"{path} has {column.type}, not {COLUMNS[name]}, in its column {name!r}; {RERUN}"
            )
        inner = pc.list_flatten(column) if COLUMNS[name].startswith("lists") else column
        if column.null_count or inner.null_count:
            raise PrunecalError(f"{path} has rows without a value in its column {name!r}; {RERUN}")


def holds(kind: "pa.DataType", wanted: str) -> bool:
    """Tell whether an Arrow type holds what is wanted, one of the names above."""
    from pyarrow import types

    fits: dict[str, Callable[[Any], bool]] = {
        TEXT: lambda kind: types.is_string(kind) or types.is_large_string(kind),
        WHOLE: types.is_integer,
        NUMBERS: types.is_floating,
        BYTES: lambda kind: types.is_binary(kind) or types.is_large_binary(kind),
    }
    if wanted in fits:
        return fits[wanted](kind)
    inner = {TEXTS: TEXT, WHOLE_LISTS: WHOLE}.get(wanted, NUMBERS)
    return (types.is_list(kind) or types.is_large_list(kind)) and fits[inner](kind.value_type)


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
        self.facts = Facts(path, {name: read_json(path, text) for name, text in texts.items()})
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


def _stem(name: str) -> str:
    return name.partition("/")[0]


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


def check_kept(path: Path | str, values: Any) -> None:
    """Refuse kept tokens, int [I, K], of which an image has one twice."""
    import numpy as np

    rows = np.sort(np.asarray(values), axis=1)
    if (rows[:, 0] < 0).any() or (np.diff(rows, axis=1) == 0).any():
        raise PrunecalError(f"{path} has a ranking that keeps a token twice; {RERUN}")
