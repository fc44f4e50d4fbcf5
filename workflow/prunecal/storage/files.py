"""Files that are whole or absent: parquet and JSON with the facts that made them.

Safetensors are in `arrays`, written by the same `atomic`.

Metadata inside a data file holds only what determines its content, so that equal content is equal
bytes; what merely accompanies a run (versions, device, wall time) goes to a provenance file.
"""

import contextlib
import functools
import json
import os
import platform
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecal.core import disk_errors, versions
from prunecal.core.errors import RERUN, PrunecalError, cut
from prunecal.storage import schemas
from prunecal.storage.checksums import file_digest
from prunecal.storage.digest_cache import Identity, identity

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

METADATA_KEY = "prunecal"
CODE_VARIABLE = "PRUNECAL_CODE"  # in which a rule names the code of its job
CODE_LINE = "# code "  # of a checksum's file, a comment to `sha256sum`
SOURCE_LINE = "# from "
ROWS = 8  # in memory at a time, where rows are read one by one
PART = ".part"  # ends the name of a file that is being written
PROVENANCE = "provenance.json"
VERSIONED = ("torch", "transformers", "datasets", "pillow", "numpy", "scipy", "pandas", "pyarrow")


_read: dict[Path, None] = {}


def note_read(path: Path | str) -> None:
    """Note that this process reads a file; the readers of this module do so themselves."""
    _read[Path(path)] = None


def read_bytes(path: Path) -> bytes:
    """Return the content of a result, such as a figure, and note that it was read."""
    note_read(path)
    return path.read_bytes()


def read_so_far() -> list[Path]:
    """List the results that this process has read, which are the sources of a page or figure.

    Provenance is left out: where a cell is computed again it tells another time, but the page of
    the same numbers remains right.
    """
    results = (path for path in _read if path.name != PROVENANCE)
    return [path for path in results if path.is_file() and checksum_file(path).is_file()]


def checksum_file(path: Path) -> Path:
    """Return the path of a file's checksum, in the form that `sha256sum --check` reads."""
    return path.with_name(f".{path.name}.sha256")


def written_files(folder: Path) -> list[Path]:
    """List the files below a folder that have a record of their checksum, there or not, sorted."""
    records = folder.rglob(".*.sha256")
    return sorted(path.with_name(path.name[1:].removesuffix(".sha256")) for path in records)


def undamaged(path: Path) -> bool:
    """Tell whether a file still has the name and the checksum with which it was written."""
    try:
        return _record_lines(path)[:1] == [f"{file_digest(path)}  {path.name}"]
    except OSError:
        return False


def recorded(path: Path) -> str | None:
    """Return the SHA-256 with which a file was written; None if its record is gone or damaged."""
    return next((line.split()[0] for line in _record_lines(path) if line.strip()), None)


def _record_lines(path: Path) -> list[str]:
    """Return the lines of a file's record; none if it is gone or damaged."""
    record = checksum_file(path)
    if not record.is_file():  # a pipe would never end
        return []
    try:
        return record.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def record(path: Path) -> None:
    """Write the checksum of a file that another program made beside it.

    Raises:
        CannotWriteError: as `atomic`.
    """
    text = f"{file_digest(path)}  {path.name}\n"
    with disk_errors.writing(checksum_file(path)):
        checksum_file(path).write_text(text, encoding="utf-8")


@contextlib.contextmanager
def atomic(
    path: Path | str, sources: Iterable[Path] = (), code: str | None = None
) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its name only if the block succeeds.

    The file's checksum is written beside it, so that `prunecal.verify` can tell later damage, with
    a line about the code that made it if the environment names it.

    Args:
        path: the file's final name.
        sources: files that it is made from, to be recorded with their checksums.
        code: record of the code that made it, by default that which the environment names.

    Raises:
        CannotWriteError: the disk is full or read-only, or the folder is not this user's.
    """
    path = Path(path)
    with disk_errors.writing(path), _atomic(path, _source_lines(path, sources), code) as temporary:
        yield temporary


def _source_lines(path: Path, sources: Iterable[Path]) -> str:
    return "".join(
        f"{SOURCE_LINE}{digest_of(source)}  {os.path.relpath(source, path.parent)}\n"
        for source in sources
    )


def digest_of(path: Path) -> str:
    """Return a file's SHA-256, read once as long as the file stays the same."""
    return _known_digest(path, identity(path))


@functools.cache
def _known_digest(path: Path, _: Identity) -> str:
    """Return a file's SHA-256; a stage that draws many figures asks for the same ones each time."""
    return file_digest(path)


@contextlib.contextmanager
def _atomic(path: Path, sources: str, code: str | None) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{part_prefix(path)}{secrets.token_hex(4)}{PART}")
    note = temporary.with_name(f"{temporary.name}.checksum")
    temporary.touch(exist_ok=False)
    mode = temporary.stat().st_mode  # as the umask and the folder's defaults have it
    try:
        yield temporary
        temporary.chmod(mode)  # safetensors puts a file of mode 0600 in its place
        text = f"{file_digest(temporary)}  {path.name}\n"
        code = code or os.environ.get(CODE_VARIABLE)
        code_line = f"{CODE_LINE}{code}\n" if code else ""
        note.write_text(text + code_line + sources, encoding="utf-8")
        temporary.replace(path)  # renamed once both are written: no file without its checksum
        note.replace(checksum_file(path))
    finally:
        temporary.unlink(missing_ok=True)
        note.unlink(missing_ok=True)


def sources_of(path: Path) -> dict[Path, str]:
    """Return the files that a file was made from, with their SHA-256 at that time, if recorded."""
    pairs = [
        line.removeprefix(SOURCE_LINE).split(maxsplit=1)
        for line in _record_lines(path)
        if line.startswith(SOURCE_LINE)
    ]
    return {
        Path(os.path.normpath(path.parent / pair[1])): pair[0] for pair in pairs if len(pair) == 2
    }


def code_of(path: Path) -> str | None:
    """Return the record of the code that made a file; None if the workflow gave none."""
    lines = _record_lines(path)
    return lines[1].removeprefix(CODE_LINE) if lines[1:] and CODE_LINE in lines[1] else None


def part_prefix(path: Path) -> str:
    """Begin the hidden name under which this process writes `path`; `stale_files` reads it.

    With `PART` as its suffix. It tells host and process, so that what a killed one left is known.
    """
    return f".{path.name}.{platform.node().partition('.')[0]}.{os.getpid()}."


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys, so that equal values are equal bytes."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def write_json(path: Path | str, value: Any, sources: Iterable[Path] = ()) -> None:
    """Write readable JSON, atomically; `sources` as for `atomic`."""
    with atomic(path, sources) as temporary:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path | str, remedy: str = RERUN) -> Any:
    """Read JSON; `remedy` is for the message about a file that is no result.

    Raises:
        PrunecalError: the file is missing or is not JSON.
    """
    note_read(path)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise unreadable(path, "JSON", error, remedy) from error
    return schemas.read_json(path, content, remedy)


def read_object(path: Path | str) -> schemas.Facts:
    """Read a JSON object; asking it for an entry that it lacks names the file.

    Raises:
        PrunecalError: the file is missing or holds something else.
    """
    return schemas.Facts(path, read_json(path))


def write_table(
    path: Path | str, table: "pa.Table", facts: Mapping[str, Any], sources: Iterable[Path] = ()
) -> None:
    """Write a parquet file (zstd) whose metadata holds `facts`, atomically; `sources` likewise."""
    import pyarrow.parquet as pq

    kept = {key: value for key, value in (table.schema.metadata or {}).items() if key == b"pandas"}
    described = table.replace_schema_metadata(kept | {METADATA_KEY: canonical_json(facts)})
    with atomic(path, sources) as temporary:
        pq.write_table(described, temporary, compression="zstd")


def read_table(
    path: Path | str, columns: list[str] | None = None, optional: Collection[str] = ()
) -> "pa.Table":
    """Read a parquet file.

    Args:
        path: of the file.
        columns: to read, by default all.
        optional: further columns to read where the file has them.

    Raises:
        PrunecalError: the file is missing, damaged, or lacks a column, or a column does not hold
            what its name says (see `schemas.COLUMNS`).
    """
    with _readable(path):
        file = _opened(path, columns)
        more = [name for name in optional if name in file.schema_arrow.names]
        table = file.read(columns=columns and [*columns, *more])
        table.validate(full=True)  # else damaged text fails where it is first used
    schemas.check_columns(path, table)
    return table


def read_rows(path: Path | str, columns: list[str]) -> tuple[int, Iterator[dict[str, Any]]]:
    """Return the number of a parquet file's rows, and the rows, few of them in memory at a time.

    Raises:
        PrunecalError: as `read_table`; of damaged rows where they come.
    """
    with _readable(path):
        file = _opened(path, columns)
    return file.metadata.num_rows, _rows(path, file, columns)


def _rows(path: Path | str, file: "pq.ParquetFile", columns: list[str]) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    with _readable(path):
        for batch in file.iter_batches(ROWS, columns=columns):
            table = pa.Table.from_batches([batch])
            table.validate(full=True)
            schemas.check_columns(path, table)
            yield from table.to_pylist()


def _opened(path: Path | str, columns: list[str] | None) -> "pq.ParquetFile":
    import pyarrow.parquet as pq

    note_read(path)
    file = pq.ParquetFile(path)
    missing = [name for name in columns or [] if name not in file.schema_arrow.names]
    if missing:
        raise PrunecalError(f"{path} lacks the column {missing[0]!r}; {RERUN}")
    return file


def unreadable(path: Path | str, kind: str, error: Exception, remedy: str = RERUN) -> PrunecalError:
    """Return what to say of a file that is missing or cannot be read as a kind of file."""
    if remedy == RERUN and not os.path.lexists(path):  # nothing to delete
        return PrunecalError(
            f"{path} is missing; run `snakemake --cores all` to make it, and run this in the same "
            "folder"
        )
    return PrunecalError(f"{path} cannot be read as {kind} ({cut(str(error))}); {remedy}")


@contextlib.contextmanager
def _readable(path: Path | str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        raise unreadable(path, "parquet", error) from error


def read_facts(path: Path | str) -> schemas.Facts:
    """Return the facts that `write_table` stored in a parquet file's metadata.

    Raises:
        PrunecalError: the file is missing, damaged, or has no such metadata.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    note_read(path)
    try:
        found = (pq.read_schema(path).metadata or {}).get(METADATA_KEY.encode())
    except (OSError, ValueError, pa.ArrowException) as error:
        raise unreadable(path, "parquet", error) from error
    if found is None:
        raise PrunecalError(f"{path} has no prunecal metadata; {RERUN}")
    return schemas.Facts(path, schemas.read_json(path, found))


def provenance(**more: Any) -> dict[str, Any]:
    """Describe this run: versions and platform, plus what the caller adds (device, wall time)."""
    numbers = {name: versions.installed(name) for name in VERSIONED}
    return {
        "versions": {"python": platform.python_version(), **numbers},
        "platform": platform.platform(),
        **more,
    }
