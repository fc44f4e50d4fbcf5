"""Which rows of a table are questions of a data set."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from prunecal.core.errors import PrunecalError, brief, cut
from prunecal.core.parameters import Parameters
from prunecal.datasets._answers import is_missing
from prunecal.datasets._pictures import listed
from prunecal.datasets._records import header, records

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Sequence
    from pathlib import Path

Scalar = bool | int | float | str
NUMBERED = re.compile(r"(.*?)\d+")
UNQUOTED = {"True": ("true", "yes"), "False": ("false", "no")}  # YAML takes yes for true
MOST_TOLD = 10  # values of a column, in a message


class Selection(Parameters):
    """Settings that say which rows of a table count."""

    where: dict[str, Scalar | list[Scalar]] = Field(
        {},
        description="columns, and the value or values that a row has to have in them; other rows "
        "are left out",
    )
    several_images: Literal["refuse", "skip"] = Field(
        "refuse", description="what to do with rows that have more than one image"
    )


def selected(
    files: Sequence[Path], columns: Sequence[str], image: str, params: Selection, left: Counter[str]
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield the rows that count: the number among all rows, the file and row, and the row.

    Args:
        files: the tables.
        columns: to read, without that of the image.
        image: its column; columns whose names differ from it in a number hold further images.
        params: which rows count.
        left: how many rows were left out, by the setting; counted up.

    Raises:
        PrunecalError: a file is damaged or lacks a column, a row has several images, or none has
            the value that the study asks for.
    """
    asked = {
        name: {
            plain
            for one in (value if isinstance(value, list) else [value])
            for plain in UNQUOTED.get(str(one), (_plain(one),))
        }
        for name, value in params.where.items()
    }
    seen: dict[str, dict[str, None]] = {name: {} for name in asked}
    number, count = -1, 0
    for path in files:
        further = _further(image, path)
        for where, row in records(path, [*columns, image, *further, *asked]):
            number += 1
            values = {name: _plain(row[name]) for name in asked}
            for name, value in values.items():
                seen[name][value] = None
            if any(value not in asked[name] for name, value in values.items()):
                left["where"] += 1
                continue
            if fault := _several(row, image, further):
                if params.several_images == "refuse":
                    raise PrunecalError(
                        f"{where} {fault}; give questions about one image each, or set "
                        "`several_images: skip`"
                    )
                left["several_images"] += 1
                continue
            count += 1
            yield number, where, row
    if asked and not count:
        for name, values in asked.items():
            told = ", ".join(map(brief, list(seen[name])[:MOST_TOLD])) or "nothing"
            if not values & set(seen[name]):
                raise PrunecalError(
                    f"no row has {' or '.join(map(brief, sorted(values)))} as its {name} (rows "
                    f"have {cut(told)}); correct `where:`"
                )
        raise PrunecalError("no row has all the values of `where:` at once; correct it")


def _plain(value: Any) -> str:
    """Return a value as text, alike in all formats: numbers without a point, in lower case."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if is_missing(value) else str(value).strip().casefold()


def _several(row: dict[str, Any], image: str, further: Sequence[str]) -> str | None:
    """Say that a row has several images, if it has."""
    count = len(listed(row[image]) or [])
    if count > 1:
        return f"has {count} images"
    present = [name for name in further if not is_missing(row[name])]
    return f"has a further image in {present[0]!r}" if present else None


def _further(image: str, path: Path) -> list[str]:
    """List the columns of further images: `image_2`, … beside `image_1`."""
    numbered = NUMBERED.fullmatch(image)
    if numbered is None:
        return []
    pattern = re.compile(rf"{re.escape(numbered[1])}\d+")
    return [name for name in header(path) if name != image and pattern.fullmatch(name)]
