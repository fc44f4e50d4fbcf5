"""Data sets in the Hub's layout: parquet files, from the Hub at a pinned revision or a folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from prunecal.core.errors import PrunecalError, cut
from prunecal.core.parameters import LocalPath, Parameters
from prunecal.sources import hub
from prunecal.storage.checksums import file_digest
from prunecal.storage.schemas import holds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa

IMAGE = "images"
OPTIONAL = ("image", "hint")


class Source(Parameters):
    """Where parquet files come from: the Hub, unless a local source is given."""

    REPO: ClassVar[str]
    REVISION: ClassVar[str]
    LOCAL: ClassVar[tuple[str, ...]] = ("path",)

    repo: str | None = Field(
        None, description="repository on the Hub; the benchmark's own without a local source"
    )
    revision: str | None = Field(None, description="commit of that repository")
    path: LocalPath | None = Field(None, description="local folder with parquet files instead")
    files: str = Field("data/test-*.parquet", description="which files: a pattern in that layout")

    @model_validator(mode="before")
    @classmethod
    def _one_source(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        sources = [key for key in ("repo", *cls.LOCAL) if given.get(key) is not None]
        if len(sources) > 1:
            raise ValueError(f"give one of {', '.join(('repo', *cls.LOCAL))}, not {sources}")
        if sources in ([], ["repo"]):
            given = {**given, "repo": given.get("repo") or cls.REPO}
            if given["repo"] == cls.REPO:
                given["revision"] = given.get("revision") or cls.REVISION
            if not given.get("revision"):
                raise ValueError("give the revision (commit) of the repo, so that data are pinned")
        return given


def find(params: Source) -> tuple[list[Path], str]:
    """Return the parquet files, downloaded if need be, and the revision that pins them.

    Raises:
        PrunecalError: the Hub or the folder does not give them.
    """
    if params.repo is not None:
        folder = hub.fetch(params.repo, params.revision, "dataset", [params.files])
        return _matching(folder, params.files), params.revision
    flat = params.files.rpartition("/")[2]
    files = _matching(params.path, params.files) or _matching(params.path, flat)
    if not files:
        raise PrunecalError(
            f"{params.path} has no file {params.files} or {flat}; give `path:` the folder of a "
            f"data set in the Hub's layout, or correct `files:`"
        )
    return files, content_digest(files)


def _matching(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except (ValueError, NotImplementedError) as error:
        raise PrunecalError(
            f"`files: {pattern}` names no files below {folder} ({error}); give a pattern such as "
            "data/test-*.parquet"
        ) from error


def content_digest(files: list[Path]) -> str:
    """Fingerprint files by their names and bytes, wherever they lie."""
    lines = "".join(f"{path.name} {file_digest(path)}\n" for path in files)
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def rows(files: list[Path], columns: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of parquet files, one by one, images as they are encoded.

    Args:
        files: parquet files of one split, in order.
        columns: the columns to read and what they hold, see `formats.holds`, or IMAGE, which comes
            as its file's bytes.

    Raises:
        PrunecalError: a file is damaged, lacks a column or has one of another type, or a row lacks
            a value; it may lack those of OPTIONAL.
    """
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for path in files:
            _check_schema(path, pq.read_schema(path), columns)
        names = [str(path) for path in files]
        stream = datasets.load_dataset(
            "parquet", data_files=names, split="train", columns=list(columns), streaming=True
        )
        if "image" in columns:
            stream = stream.cast_column("image", datasets.Image(decode=False))
        for number, row in enumerate(stream):
            _check_row(f"{files[0].parent} row {number}", row)
            if row.get("image") is not None:
                row["image"] = row["image"]["bytes"]
                if row["image"] is None:
                    raise PrunecalError(
                        f"{files[0].parent} has images by path only; embed their bytes, as the "
                        f"Hub's copies do"
                    )
            yield row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise PrunecalError(
            f"{files[0].parent} holds a damaged parquet file ({cut(str(error))}); copy or "
            "download it again"
        ) from error


def _check_schema(path: Path, schema: pa.Schema, columns: Mapping[str, str]) -> None:
    from pyarrow import types

    for name, wanted in columns.items():
        if name not in schema.names:
            raise PrunecalError(
                f"{path} lacks the column {name!r}; use the benchmark's own files, or "
                f"name the columns as they do: {', '.join(columns)}"
            )
        kind = schema.field(name).type
        if wanted == IMAGE:  # encoded, with the name of a file, or that name alone
            fits = types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        else:
            fits = holds(kind, wanted) or (name in OPTIONAL and types.is_null(kind))
        if not fits:
            raise PrunecalError(
                f"{path} has {kind} in its column {name!r} instead of {wanted}; use the "
                "benchmark's own files, or types as theirs"
            )


def _check_row(where: str, row: Mapping[str, Any]) -> None:
    for name, value in row.items():
        if name not in OPTIONAL and (value is None or (isinstance(value, list) and None in value)):
            raise PrunecalError(f"{where} has no {name}, or a part of it is missing; add it")
