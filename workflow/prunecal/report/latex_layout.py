"""How a table is set so that it fits LaTeX's page: smaller, along the paper's long side, in parts.

Widths are estimates in points at 10 pt of Computer Modern, and the page is that of LaTeX's article,
which is narrower than most.
"""

from __future__ import annotations

import re
from math import ceil
from typing import NamedTuple

WIDTHS = dict.fromkeys(" .,:;[]()|!'ijlt", 3.2)
WIDTHS |= dict.fromkeys("ABCDEFGHIJKLMNOPQRSTUVWXYZmw+−=<>%Δ", 7.8)
OTHER = 5.2  # the width of all other characters
PARAGRAPH = 130.0  # texts wider than this are broken over lines
HEADING = 55.0  # headings are broken where they would make a column wider than this


class Layout(NamedTuple):
    """A size of letters on a side of the paper."""

    size: str
    scale: float
    room: float  # across the text
    space: float  # between a column and its edge

    @property
    def landscape(self) -> bool:
        """Whether the page must be turned."""
        return self.room > LAYOUTS[0].room

    def fits(self, columns: list[Column]) -> bool:
        """Tell whether these columns fit side by side."""
        widths = (column.width * self.scale + 2 * self.space for column in columns)
        return sum(widths) <= self.room

    def kind(self, column: Column) -> str:
        """Return a column's letter for LaTeX."""
        return f"p{{{column.width * self.scale:.0f}pt}}" if column.side == "p" else column.side

    def around(self, body: str) -> str:
        """Return a table with what it needs before and after it."""
        if self == LAYOUTS[0]:
            return body
        start = rf"\begingroup\{self.size}\setlength{{\tabcolsep}}{{{self.space:g}pt}}"
        body = f"{start}\n{body}\\endgroup\n"
        return f"\\begin{{landscape}}\n{body}\\end{{landscape}}\n" if self.landscape else body


class Column(NamedTuple):
    """A column as LaTeX: its head and entries, its side (l, r, or p for paragraphs), its width.

    A key names a row: where a table is set in parts, each part has it.
    """

    head: str
    entries: list[str]
    side: str
    width: float
    key: bool


LAYOUTS = (  # the first that a table fits is taken
    Layout("normalsize", 1.0, 345.0, 6.0),
    Layout("footnotesize", 0.85, 345.0, 3.0),
    Layout("footnotesize", 0.85, 550.0, 3.0),
    Layout("scriptsize", 0.8, 550.0, 3.0),
)
IN_PARTS = LAYOUTS[2]


def set_column(title: list[str], entries: list[str], numeric: bool, key: bool) -> Column:
    """Set a column: numbers to the right, long texts as paragraphs, its heading over lines.

    Args:
        title: the words of its heading, as LaTeX.
        entries: as LaTeX.
        numeric: whether they are numbers.
        key: whether they name the row.
    """
    width = max(map(text_width, entries), default=0.0)
    if width > PARAGRAPH and not numeric:
        longest = max(text_width(word) for entry in [*title, *entries] for word in entry.split())
        return Column(" ".join(title), entries, "p", max(PARAGRAPH, longest), key)
    lines = title[:1]
    for word in title[1:]:
        longer = f"{lines[-1]} {word}"
        if text_width(longer) > max(width, HEADING):
            lines.append(word)
        else:
            lines[-1] = longer
    side = "r" if numeric else "l"
    width = max(width, *map(text_width, lines))
    head = lines[0]
    if len(lines) > 1:
        head = rf"\shortstack[{side}]{{" + r" \\ ".join(lines) + "}"
    return Column(head, entries, side, width, key)


def arrange(columns: list[Column]) -> tuple[Layout, list[list[Column]]]:
    """Choose a layout, and parts of a table that is too wide for all: each has all the keys."""
    for layout in LAYOUTS:
        if layout.fits(columns):
            return layout, [columns]
    keys = [one for one in columns if one.key]
    rest = [one for one in columns if not one.key]
    for number in range(2, len(rest) + 1):
        each = ceil(len(rest) / number)
        parts = [keys + rest[start : start + each] for start in range(0, len(rest), each)]
        if all(map(IN_PARTS.fits, parts)):
            return IN_PARTS, parts
    return IN_PARTS, [columns]


def text_width(text: str) -> float:
    """Estimate the width of a LaTeX text."""
    plain = re.sub(r"[{}$\\]", "", re.sub(r"\\[a-zA-Z]+(\{\})?", "m", text))
    return sum(WIDTHS.get(character, OTHER) for character in plain)
