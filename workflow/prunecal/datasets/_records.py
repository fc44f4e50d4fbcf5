"""Rows of tables in any of the usual formats, one by one, each with the words that locate it."""

from __future__ import annotations

import csv
import json
import re
from typing import TYPE_CHECKING, Any, NoReturn

from prunecal.core.errors import PrunecalError, brief, cut
from prunecal.datasets._parquet import ANY, column_names, rows_of
from prunecal.sources.safe_paths import check_file, reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON = (".jsonl", ".json", ".ndjson")
ARROW = (".parquet", ".arrow")
FORMATS = (*ARROW, *JSON, *DELIMITERS)
BLANK = b" \t\r\n"  # white space of JSON; other white space on a line alone is no blank line
OTHER_SEPARATOR = re.compile("[;,\t|]")  # in a header of one column
LONGEST_FIELD = 2**31 - 1  # characters; the library's own limit is shorter than an image

Located = tuple[str, dict[str, Any]]  # the file and row or line, and the row


def records(path: Path, columns: Iterable[str]) -> Iterator[Located]:
    """Yield the rows of a table and where each is.

    Values are as the format has them: CSV and TSV give text alone, JSON and parquet also numbers,
    lists and objects. A JSON object that lacks a column gives None.

    Args:
        path: a file of one of FORMATS, told by its suffix.
        columns: those to read.

    Raises:
        PrunecalError: the format is unknown, the file is missing or damaged, lacks a column or has
            one twice, or a row has more or fewer values than columns.
    """
    check_file(path, "correct the path")
    columns, suffix = list(dict.fromkeys(columns)), path.suffix.lower()
    if suffix in DELIMITERS:
        yield from _delimited(path, DELIMITERS[suffix], columns)
    elif suffix in JSON:
        yield from _objects(path, columns)
    elif suffix in ARROW:
        _refuse_missing(path, columns, column_names(path))
        for number, row in enumerate(rows_of(path, dict.fromkeys(columns, ANY))):
            yield f"{path} row {number}", row
    else:
        _refuse_format(path)


def _refuse_format(path: Path) -> NoReturn:
    raise PrunecalError(
        f"{path} ends in {path.suffix.lower() or 'nothing'!r}, which is not a table; unpack or "
        f"save it as a file that ends in {', '.join(FORMATS)}"
    )


def header(path: Path) -> list[str]:
    """Return the names of a table's columns; of JSON, the keys of all its objects.

    Raises:
        PrunecalError: as `records`.
    """
    check_file(path, "correct the path")
    suffix = path.suffix.lower()
    if suffix in DELIMITERS:
        return next(_fields(path, DELIMITERS[suffix]))[1]
    if suffix in JSON:
        return list(dict.fromkeys(key for _, record in _parsed(path) for key in record))
    return column_names(path) if suffix in ARROW else _refuse_format(path)


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield where each line is and its JSON value; only a line feed ends a line.

    Raises:
        PrunecalError: the file cannot be read, or a line is not UTF-8 text or not JSON.
    """
    with reading(path), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if content.strip(BLANK):
                where = f"{path} line {number}"
                yield where, _json(where, content, "line")


def _json(where: str, content: bytes, what: str) -> Any:
    try:
        return json.loads(content.decode(), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise PrunecalError(f"{where} is not UTF-8 text ({error}); save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise PrunecalError(
            f"{where} is not JSON ({cut(str(error))}); correct the {what}"
        ) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, none of whose keys may stand for two values."""
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError("a key is repeated")
    return record


def _parsed(path: Path) -> Iterator[Located]:
    """Yield the objects of a file of JSON lines, or of one list."""
    with reading(path), path.open("rb") as file:
        start = file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip(BLANK)
    if start.startswith(b"["):
        with reading(path):
            content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
        listed = _json(str(path), content, "file")
        entries = ((f"{path} entry {number}", entry) for number, entry in enumerate(listed))
    else:
        entries = _lines_or_refuse(path, start)
    for where, entry in entries:
        if not isinstance(entry, dict):
            raise PrunecalError(f"{where} is {brief(entry)}; give an object with a key per column")
        yield where, entry


def _lines_or_refuse(path: Path, start: bytes) -> Iterator[tuple[str, Any]]:
    """Yield the lines of a file; refuse one that is a single object over several lines."""
    lines = json_lines(path)
    try:
        first = next(lines, None)
    except PrunecalError:
        try:
            whole = json.loads(path.read_bytes()) if start.startswith(b"{") else None
        except (ValueError, RecursionError):
            whole = None
        if not isinstance(whole, dict):
            raise
        raise PrunecalError(_one_object(path, whole)) from None
    if first is not None:
        yield first
        yield from lines


def _one_object(path: Path, whole: dict[str, Any]) -> str:
    """Say that a file is a single object, such as one with a list of the questions in it."""
    keys = ", ".join(repr(key) for key in list(whole)[:3])
    return (
        f"{path} is one object with the keys {cut(keys)}{' …' * (len(whole) > 3)}; give a list of "
        "objects, one per question, such as one of its values or the list of them"
    )


def _objects(path: Path, columns: list[str]) -> Iterator[Located]:
    empty = True
    for where, record in _parsed(path):
        if empty and not set(columns) <= record.keys():
            names = header(path)  # rows may lack a key that others have
            alone = where.startswith(f"{path} line") and sum(1 for _ in json_lines(path)) == 1
            if alone and not set(columns) & set(names):
                raise PrunecalError(_one_object(path, record))
            _refuse_missing(path, columns, names)
        empty = False
        yield where, {name: record.get(name) for name in columns}
    if empty:
        _refuse_missing(path, columns, [])


def _delimited(path: Path, delimiter: str, columns: list[str]) -> Iterator[Located]:
    lines = _fields(path, delimiter)
    _, names = next(lines)
    _refuse_missing(path, columns, names)
    places = {name: names.index(name) for name in columns}
    for where, fields in lines:
        if len(fields) != len(names):
            raise PrunecalError(
                f"{where} has {len(fields)} values for {len(names)} columns; correct the row, with "
                "quotes around values that hold a separator or a line break"
            )
        yield where, {name: fields[place] for name, place in places.items()}


def _fields(path: Path, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Yield where each row of delimited text begins and its values, the header first."""
    csv.field_size_limit(LONGEST_FIELD)
    with reading(path), path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        count = 0
        while True:
            where = f"{path} line {reader.line_num + 1}"
            try:
                fields = next(reader)
            except StopIteration:
                break
            except (csv.Error, UnicodeDecodeError) as error:
                remedy = (
                    "save the file again as UTF-8"
                    if isinstance(error, UnicodeDecodeError) or "\0" in str(error)
                    else "put quotes around a value that begins with one, and double those in it"
                )
                raise PrunecalError(
                    f"{where} cannot be read as {path.suffix[1:]} ({cut(str(error))}); {remedy}"
                ) from error
            if fields:  # blank lines hold no row
                count += 1
                if count == 1 and len(fields) == 1 and (other := OTHER_SEPARATOR.search(fields[0])):
                    raise PrunecalError(
                        f"{where} has values between {other[0]!r}; save {path.name} with "
                        f"{delimiter!r} between them, as its ending says"
                    )
                yield where, fields
    if not count:
        raise PrunecalError(f"{path} is empty; give a table with a header and rows")


def _refuse_missing(path: Path, columns: list[str], names: list[str]) -> None:
    for name in columns:
        if names.count(name) != 1:
            fault = "lacks the column" if name not in names else "has more than one column"
            known = ", ".join(map(str, names)) or "none"
            raise PrunecalError(
                f"{path} {fault} {name!r} (it has {cut(known)}); name the columns as the file does"
            )
