"""What the project's files hold: types of columns, facts in their metadata.

A name means the same in every file, so one table each says what may stand under it (that of
arrays is in `arrays`). What was damaged, or written by another program, is refused here by its
file's name, before a stage trips over it.
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
