"""Data sets as tables: parquet files in the Hub's layout, or a folder saved by datasets."""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from prunecal.core.errors import PrunecalError, cut
from prunecal.core.parameters import Commit, LocalPath, Parameters
from prunecal.datasets._saved import ENDING, saved_files, saved_tables
from prunecal.sources import hub
from prunecal.sources.safe_paths import check_file, is_inside, reading, refuse_links_out
from prunecal.storage.checksums import file_digest
from prunecal.storage.schemas import holds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import pyarrow as pa

IMAGE = "images"
ANY = "anything"
OPTIONAL = ("image", "hint")
PART = re.compile(r"-(\d{5})-of-(\d{5})(?!\d)")
BATCH = 64  # rows decoded at a time


class Source(Parameters):
    """Where parquet files come from: the Hub, unless a local source is given."""

    REPO: ClassVar[str]
    REVISION: ClassVar[str]
    LOCAL: ClassVar[tuple[str, ...]] = ("path",)

    repo: str | None = Field(
        None, description="repository on the Hub; the benchmark's own without a local source"
    )
    revision: Commit | None = Field(None, description="commit of that repository")
    path: LocalPath | None = Field(
        None, description="local folder instead: parquet files, or saved by datasets"
    )
    files: str = Field("data/test-*.parquet", description="which files: a pattern in that layout")

    @model_validator(mode="before")
    @classmethod
    def _one_source(cls, settings: Any) -> Any:
        if not isinstance(settings, dict):
            return settings
        sources = [key for key in ("repo", *cls.LOCAL) if settings.get(key) is not None]
        if len(sources) > 1:
            raise ValueError(f"give one of {', '.join(('repo', *cls.LOCAL))}, not {sources}")
        if sources in ([], ["repo"]):
            settings = {**settings, "repo": settings.get("repo") or cls.REPO}
            if settings["repo"] == cls.REPO:
                settings["revision"] = settings.get("revision") or cls.REVISION
            if not settings.get("revision"):
                raise ValueError("give the revision (commit) of the repo, so that data are pinned")
        return settings


def find(params: Source) -> tuple[list[Path], str]:
    """Return the parquet files, downloaded if need be, and the revision that pins them.

    Raises:
        PrunecalError: the Hub or the folder does not give them.
    """
    if params.repo is not None:
        folder = hub.fetch(params.repo, params.revision, "dataset", [params.files])
        files = _matching(folder, params.files)
        _check_parts(files, params.files)
        return files, params.revision
    flat = params.files.rpartition("/")[2]
    if files := saved_files(params.path, flat.partition("-")[0]):
        refuse_links_out(params.path, files)
        return files, content_digest(files)
    files = _matching(params.path, params.files) or _matching(params.path, flat)
    if not files:
        patterns = " or ".join(dict.fromkeys((params.files, flat)))
        raise PrunecalError(
            f"{params.path} has no file {patterns}; give `path:` the folder of a data set in the "
            "Hub's layout, or correct `files:`"
        )
    _check_parts(files, params.files)
    refuse_links_out(params.path, files)
    revision = content_digest(files)
    _refuse_copies(files)
    return files, revision


def _refuse_copies(files: list[Path]) -> None:
    by_size: dict[int, list[Path]] = {}
    for path in files:
        same_size = by_size.setdefault(path.stat().st_size, [])
        for other in same_size:
            if filecmp.cmp(path, other, shallow=False):
                raise PrunecalError(
                    f"{path} is a copy of {other}, whose questions would count twice; remove one, "
                    "or correct `files:`"
                )
        same_size.append(path)


def _check_parts(files: list[Path], pattern: str) -> None:
    """Refuse a folder that lacks a part of a split, or has one twice, by the parts' names."""
    if [path.name for path in files] == [Path(pattern).name]:
        return  # this one is asked for by its name
    parts: dict[tuple[Path, str, int], dict[int, Path]] = {}
    for path in files:
        if match := PART.search(path.name):
            key = (path.parent, path.name[: match.start()], int(match[2]))
            other = parts.setdefault(key, {}).setdefault(int(match[1]), path)
            if other != path:
                raise PrunecalError(
                    f"{path} and {other} are both part {match[1]} of {key[1]}, whose questions "
                    "would count twice; remove one, or correct `files:`"
                )
    for (folder, name, total), numbers in parts.items():
        missing = sorted(set(range(total)) - numbers.keys())
        if missing:
            raise PrunecalError(
                f"{folder} has {len(numbers)} of the {total} parts of {name} and lacks part "
                f"{missing[0]:05}; copy or download the others, or correct `files:`"
            )


def _matching(folder: Path, pattern: str) -> list[Path]:
    """Return the file of exactly that name, else the files that the pattern matches."""
    if is_inside(pattern) and os.path.lexists(folder / pattern):
        return [folder / pattern]
    try:
        if ".." in Path(pattern).parts:
            raise ValueError("`..` leads out of it")  # noqa: TRY301  as glob's own refusals
        with reading(folder):
            return sorted(folder.glob(pattern))
    except (ValueError, NotImplementedError) as error:
        raise PrunecalError(
            f"`files: {pattern}` names no files below {folder} ({error}); give a pattern such as "
            "data/test-*.parquet"
        ) from error


def content_digest(files: Iterable[Path]) -> str:
    """Fingerprint files by their names and bytes, wherever they are.

    Raises:
        PrunecalError: a file is not there, is no regular file or cannot be read.
    """
    digest = hashlib.sha256()
    for path in files:
        check_file(path, "copy the file there, or correct the data set's settings")
        with reading(path):
            digest.update(f"{path.name} {file_digest(path)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def rows(files: list[Path], columns: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of parquet or Arrow files, one by one, images as they are encoded.

    Each file is opened by its path alone, which is never read as a pattern or an address, and
    nothing is cached.

    Args:
        files: of one split, in order.
        columns: the columns to read and what they hold, see `schemas.holds`, or IMAGE, which comes
            as its file's bytes.

    Raises:
        PrunecalError: a file is damaged, lacks a column or has one of another type, or a row lacks
            a value; it may lack those of OPTIONAL.
    """
    number = 0
    for path in files:
        for row in rows_of(path, columns):
            _check_row(f"{path} row {number}", row)
            if row.get("image") is not None:
                row["image"] = row["image"]["bytes"]
                if row["image"] is None:
                    raise PrunecalError(
                        f"{path} has images by path only; embed their bytes, as the Hub's copies do"
                    )
            yield row
            number += 1


def rows_of(path: Path, columns: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of one parquet or Arrow file as they are.

    Args:
        path: the file.
        columns: as for `rows`, or ANY, for a column of any type.

    Raises:
        PrunecalError: the file is damaged, lacks a column or has one of another type.
    """
    import pyarrow.parquet as pq

    with _arrow_file(path):
        if path.suffix == ENDING:
            for table in saved_tables(path, BATCH):
                _check_schema(path, table.schema, columns)
                yield from table.select(list(columns)).to_pylist()
            return
        with path.open("rb") as file:
            parquet = pq.ParquetFile(file)
            _check_schema(path, parquet.schema_arrow, columns)
            for batch in parquet.iter_batches(BATCH, columns=list(columns)):
                yield from batch.to_pylist()


def column_names(path: Path) -> list[str]:
    """Return the names of the columns of a parquet or Arrow file.

    Raises:
        PrunecalError: the file is damaged.
    """
    return _schema(path).names


def image_columns(path: Path) -> list[str]:
    """Return the names of the columns whose type is that of an image, or of a list of images.

    Raises:
        PrunecalError: the file is damaged.
    """
    from pyarrow import types

    names = []
    for field in _schema(path):
        kind = field.type
        while hasattr(kind, "value_field"):  # lists of any form
            kind = kind.value_type
        if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            names.append(field.name)
    return names


def _schema(path: Path) -> pa.Schema:
    import pyarrow.parquet as pq

    with _arrow_file(path):
        if path.suffix == ENDING:
            return next(saved_tables(path, 1)).schema
        with path.open("rb") as file:
            return pq.ParquetFile(file).schema_arrow


@contextlib.contextmanager
def _arrow_file(path: Path) -> Iterator[None]:
    """Tell in one sentence what is wrong with a file that pyarrow cannot read."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # not Arrow's, but the disk's
            with reading(path):
                raise
        raise PrunecalError(
            f"{path} is a damaged {path.suffix[1:]} file ({cut(str(error))}); copy or download it "
            "again"
        ) from error


def _check_schema(path: Path, schema: pa.Schema, columns: Mapping[str, str]) -> None:
    from pyarrow import types

    for name, content in columns.items():
        if schema.names.count(name) != 1:
            fault = "lacks the column" if name not in schema.names else "has more than one column"
            raise PrunecalError(
                f"{path} {fault} {name!r}; use the benchmark's own files, or "
                f"name the columns as they do: {', '.join(columns)}"
            )
        if content == ANY:
            continue
        kind = schema.field(name).type
        if content == IMAGE:  # encoded, with the name of a file, or that name alone
            fits = types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        else:
            fits = holds(kind, content) or (name in OPTIONAL and types.is_null(kind))
        if not fits:
            raise PrunecalError(
                f"{path} has {kind} in its column {name!r} instead of {content}; use the "
                "benchmark's own files, or types as theirs"
            )


def _check_row(where: str, row: Mapping[str, Any]) -> None:
    for name, value in row.items():
        missing = value is None or (isinstance(value, list) and None in value)
        blank = isinstance(value, str) and not value.strip()
        if name not in OPTIONAL and (missing or blank):
            raise PrunecalError(f"{where} has no {name}, or a part of it is missing; add it")
