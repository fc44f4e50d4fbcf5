"""Which rows of a table are questions of a data set."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from prunecal.core.cli import log
from prunecal.core.errors import PrunecalError, brief, counted, cut
from prunecal.core.parameters import Parameters
from prunecal.datasets._answers import is_missing
from prunecal.datasets._parquet import image_columns
from prunecal.datasets._pictures import ONE_IMAGE, listed
from prunecal.datasets._records import ARROW, header, records

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Mapping, Sequence
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
    leave_out: dict[str, Scalar | None | list[Scalar | None]] = Field(
        {},
        description="columns, and the value or values whose rows are left out; null is nothing, or "
        "an empty list",
    )
    several_images: Literal["refuse", "skip", "named"] = Field(
        "refuse",
        description="what to do with rows that have more than one image; named takes that of "
        "`image:` beside others in further columns",
    )


class Where:
    """The rows that the setting `where:` keeps.

    Attributes:
        columns: those that it reads.
    """

    def __init__(self, params: Selection) -> None:
        self._asked, self._not = _values(params.where), _values(params.leave_out)
        self._seen: dict[str, dict[str, None]] = {name: {} for name in self._asked}
        self.columns = [*{**self._asked, **self._not}]

    def keeps(self, row: Mapping[str, Any]) -> bool:
        """Tell whether a row has one of the values in each column, and none that is left out."""
        for name in self._asked:
            self._seen[name][_plain(row[name])] = None
        return all(_plain(row[name]) in values for name, values in self._asked.items()) and not any(
            _plain(row[name]) in values for name, values in self._not.items()
        )

    def refuse_none(self) -> None:
        """Say that no row of those that were asked for is kept, and why, if there is a `where:`.

        Raises:
            PrunecalError: there is one.
        """
        for name, values in self._asked.items():
            told = ", ".join(map(brief, list(self._seen[name])[:MOST_TOLD])) or "nothing"
            if not values & set(self._seen[name]):
                raise PrunecalError(
                    f"no row has {' or '.join(map(brief, sorted(values)))} as its {name} (rows "
                    f"have {cut(told)}); correct `where:`"
                )
        if self.columns:
            raise PrunecalError("no row is left; correct `where:` and `leave_out:`")


def _values(given: Mapping[str, Any]) -> dict[str, set[str]]:
    return {
        name: {
            plain
            for one in (value if isinstance(value, list) else [value])
            for plain in UNQUOTED.get(str(one), (_plain(one),))
        }
        for name, value in given.items()
    }


def selected(
    files: Sequence[Path], columns: Sequence[str], image: str, params: Selection, left: Counter[str]
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield the rows that count: the number among all rows, the file and row, and the row.

    Args:
        files: the tables.
        columns: to read, without that of the image.
        image: its column; columns whose names differ from it in a number, and others whose type is
            that of images, hold further ones.
        params: which rows count.
        left: how many rows were left out, by the setting; counted up.

    Raises:
        PrunecalError: a file is damaged or lacks a column, a row has several images, or none has
            the value that the study asks for.
    """
    where, number, kept = Where(params), -1, False
    for path in files:
        further = _further(image, path)
        for place, row in records(path, [*columns, image, *further, *where.columns]):
            number += 1
            if not where.keeps(row):
                left["where, leave_out"] += 1
                continue
            kept = True
            alone = () if params.several_images == "named" else further
            if fault := _several(row, image, alone):
                if params.several_images != "skip":
                    raise PrunecalError(f"{place} {fault}; {ONE_IMAGE}")
                left["several_images"] += 1
                continue
            yield number, place, row
    if not kept:
        where.refuse_none()


def tell(left: Counter[str]) -> None:
    """Log how many rows were left out, by the setting."""
    for setting, count in left.items():
        log.info("left out %s (%s)", counted(count, "row"), setting)


def _plain(value: Any) -> str:
    """Return a value as text, alike in all formats: numbers without a point, in lower case."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value in ([], "[]"):
        return ""
    return "" if is_missing(value) else str(value).strip().casefold()


def _several(row: dict[str, Any], image: str, further: Sequence[str]) -> str | None:
    """Say that a row has several images, if it has."""
    count = len(listed(row[image]) or [])
    if count > 1:
        return f"has {count} images"
    present = [name for name in further if not is_missing(row[name]) and row[name] != []]
    return f"has a further image in {present[0]!r}" if present else None


def _further(image: str, path: Path) -> list[str]:
    """List the columns of further images: `image_2`, … beside `image_1`, or of an image's type."""
    names = image_columns(path) if path.suffix.lower() in ARROW else []
    if numbered := NUMBERED.fullmatch(image):
        alike = re.compile(rf"{re.escape(numbered[1])}\d+")
        names += [name for name in header(path) if alike.fullmatch(name) and name not in names]
    return [name for name in names if name != image]
