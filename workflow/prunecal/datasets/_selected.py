"""Which rows of a table are questions of a data set."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from prunecal.core.cli import log
from prunecal.core.errors import PrunecalError, brief, counted, cut
from prunecal.core.parameters import Parameters
from prunecal.datasets._answers import POINTED, is_missing
from prunecal.datasets._parquet import image_columns
from prunecal.datasets._pictures import NAMED, ONE_IMAGE, listed
from prunecal.datasets._records import ARROW, header, records

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

Scalar = bool | int | float | str
NUMBERED = re.compile(r"(.*?)\d+")
UNQUOTED = {  # YAML takes yes and on for true
    "True": ("true", "yes", "on"),
    "False": ("false", "no", "off"),
}
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
    """The rows that the settings `where:` and `leave_out:` keep.

    Attributes:
        columns: those that they read.
        left: how many rows were left out, by the setting.
    """

    def __init__(self, params: Selection) -> None:
        self._given = {"where": params.where, "leave_out": params.leave_out}
        self._asked, self._not = _values(params.where), _values(params.leave_out)
        self._seen: dict[str, dict[str, None]] = {name: {} for name in self._asked}
        self._met: dict[str, dict[str, None]] = {name: {} for name in self._not}
        self.columns = [*{**self._asked, **self._not}]
        self.left = Counter[str]()

    def keeps(self, row: Mapping[str, Any]) -> bool:
        """Tell whether a row has one of the values in each column, and none that is left out."""
        plain = {name: _plain(row[name]) for name in self.columns}
        for name in self._asked:
            self._seen[name][plain[name]] = None
        unwanted = [name for name, values in self._not.items() if plain[name] in values]
        for name in unwanted:
            self._met[name][plain[name]] = None
        return not unwanted and all(plain[name] in one for name, one in self._asked.items())

    def refuse_none(self) -> None:
        """Say that no row is kept, and why, if there is a `where:` or `leave_out:`.

        Raises:
            PrunecalError: there is one of them.
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

    def tell(self) -> None:
        """Log how many rows were left out, by the setting, and values that no row has."""
        for setting, count in self.left.items():
            log.info("left out %s (%s)", counted(count, "row"), setting)
        met = {"where": self._seen, "leave_out": self._met}
        for setting, given in self._given.items():
            for name, value in given.items():
                for one in _listed(value):
                    if met[setting][name].keys().isdisjoint(_plains(one)):
                        told = "null" if one is None else brief(one)
                        log.warning("no row has %s as its %s (%s)", told, name, setting)


def _values(given: Mapping[str, Any]) -> dict[str, set[str]]:
    return {
        name: {plain for one in _listed(value) for plain in _plains(one)}
        for name, value in given.items()
    }


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _plains(value: Any) -> tuple[str, ...]:
    """Return the texts that a value of the study stands for."""
    return UNQUOTED.get(str(value), (_plain(value),))


def selected(
    files: Sequence[Path], columns: Sequence[str], image: str, params: Selection, where: Where
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield the rows that count: the number among all rows, the file and row, and the row.

    Args:
        files: the tables.
        columns: to read, without that of the image.
        image: its column; columns whose names differ from it in a number, and others whose type is
            that of images, hold further ones.
        params: which rows count.
        where: made of them; its `left` is counted up.

    Raises:
        PrunecalError: a file is damaged or lacks a column, a row has several images, or none has
            the value that the study asks for.
    """
    number, kept = -1, False
    for path in files:
        further = _further(image, path)
        for place, row in records(path, [*columns, image, *further, *where.columns]):
            number += 1
            if not where.keeps(row):
                where.left["where, leave_out"] += 1
                continue
            kept = True
            alone = () if params.several_images == "named" else further
            if fault := _several(row, image, alone):
                if params.several_images != "skip":
                    raise PrunecalError(f"{place} {fault}")
                where.left["several_images"] += 1
                continue
            yield number, place, row
    if not kept:
        where.refuse_none()


def _plain(value: Any) -> str:
    """Return a value as text, alike in all formats: numbers without a point, in lower case."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value in ([], "[]"):
        return ""
    text = "" if is_missing(value) else str(value).strip().casefold()
    return text.removesuffix(".0") if POINTED.fullmatch(text) else text


def _several(row: dict[str, Any], image: str, further: Sequence[str]) -> str | None:
    """Say that a row has several images, and what to do, if it has."""
    count = len(listed(row[image]) or [])
    if count > 1:
        return f"has {count} images; {ONE_IMAGE}"
    present = [name for name in further if not is_missing(row[name]) and row[name] != []]
    return f"has a further image in {present[0]!r}; {NAMED}" if present else None


def _further(image: str, path: Path) -> list[str]:
    """List the columns of further images: `image_2`, … beside `image_1`, or of an image's type.

    Beside `image` they are `image2` or `image_2`, ….
    """
    names = image_columns(path) if path.suffix.lower() in ARROW else []
    numbered = NUMBERED.fullmatch(image)
    start = re.escape(numbered[1]) if numbered else rf"{re.escape(image)}[_-]?"
    alike = re.compile(rf"{start}\d+")
    names += [name for name in header(path) if alike.fullmatch(name) and name not in names]
    return [name for name in names if name != image]
