"""Tables of the study as LaTeX (booktabs, graphicx) for a paper, each made from its CSV."""

from __future__ import annotations

import argparse
import math
import re
import textwrap
import unicodedata
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from prunecal.calibration import catalogue
from prunecal.core import cli
from prunecal.figures import labels, naming, pooling
from prunecal.storage import files

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

ESTIMATES = ("rho", "beyond", "interaction", "value")  # what a table's ci_low and ci_high are of
NAMED = ("metric", "with")  # columns that hold keys of metrics
KEYS = (*naming.CELL_COLUMNS, "load", "claim")  # columns that name a row
# Characters: longer texts are broken over lines, and words within them; headings over lines; rows
# that are longer turn the page, or are cut into parts that repeat the keys.
PARAGRAPH, WORD, HEADING, UPRIGHT, LONGEST = 48, 20, 12, 100, 130
LINES = 38  # of one tabular on an upright page, beside its head
# LaTeX itself measures a tabular and scales it down to the line and the page
FIT = r"""\noindent
\resizebox*{!}{\ifdim\totalheight>.95\vsize .95\vsize\else\totalheight\fi}{%
\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%
"""
DIGEST = re.compile("[0-9a-f]{40,64}")
SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # a row that began with a bracket or a star would be an option of the row before
    "]": "{]}",
    "*": "{*}",
    "α": r"$\alpha$",
    "ρ": r"$\rho$",
    "Δ": r"$\Delta$",
    "·": r"$\cdot$",
    "−": "$-$",
}
PLAIN = set("‘’“”–—…°±×÷§·ßæøœÆØŒ")  # beside ASCII, and letters with an accent
ACCENTS = set("\u0300\u0301\u0302\u0303\u0308\u030a\u030c\u0327")


class Column(NamedTuple):
    """A column as text.

    A key names a row: where a table is set in parts, each part has it.
    """

    heading: str
    entries: list[str]
    numeric: bool
    key: bool

    @property
    def characters(self) -> int:
        """Return its width."""
        longest = max(map(len, self.entries), default=0)
        return max(min(longest, PARAGRAPH) if not self.numeric else longest, HEADING // 2) + 2

    @property
    def kind(self) -> str:
        """Return its letter for LaTeX: r for numbers, l for texts, p for paragraphs."""
        if self.numeric:
            return "r"
        longest = max(map(len, self.entries), default=0)
        return f"p{{{PARAGRAPH // 2}em}}" if longest > PARAGRAPH else "l"

    @property
    def head(self) -> str:
        """Return its heading as LaTeX, over several lines where it is longer than the entries."""
        lines = textwrap.wrap(self.heading, max(HEADING, self.characters), break_long_words=False)
        text = r" \\ ".join(map(escape, lines))
        return rf"\shortstack[{self.kind[0].replace('p', 'l')}]{{{text}}}" if lines[1:] else text


def main(arguments: argparse.Namespace) -> None:
    """Write `{name}.tex` for each `{name}.csv`."""
    names = labels.names_of(pooling.read(arguments.metrics))
    for source in arguments.tables:
        convert(source, arguments.folder, names)


def convert(source: Path, folder: Path, names: labels.Names) -> None:
    """Write a CSV table of the workflow as LaTeX, under the same name.

    Args:
        source: the table.
        folder: where to write.
        names: of the strategies.

    Raises:
        PrunecalError: the file is missing, empty or no CSV.
    """
    frame = labels.for_readers(pooling.read_csv(source), names)
    with files.atomic(folder / f"{source.stem}.tex", [source]) as path:
        path.write_text(table(frame, source.name), encoding="utf-8")


def table(frame: pd.DataFrame, source: str, note: str | None = None) -> str:
    r"""Return a table for a paper, which LaTeX scales to the width of the line.

    Wide tables stand along the long side of the paper, the widest in parts that repeat the keys;
    long ones go on in another tabular with the same head, between which pages break.

    Args:
        frame: any table of the study. Columns X_low and X_high (ci_low and ci_high for the
            estimate) become X's interval in brackets, a column that holds one text alone is said
            in a comment instead of a column, missing numbers become two dashes and columns without
            any are left out. A strategy's family, which its name begins with, is left out.
        source: the file that holds it, named in a comment.
        note: what else a reader must know, another comment.
    """
    frame = frame.drop(columns="family", errors="ignore")
    constant = {
        column: frame[column].iloc[0]
        for column in frame.columns
        if len(frame) > 1 and not _numeric(frame[column]) and frame[column].nunique() == 1
        if frame[column].notna().all()
    }
    empty = [column for column in frame.columns if len(frame) and frame[column].isna().all()]
    rest = frame.drop(columns=[*constant, *empty])
    columns = [
        Column(naming.heading(name), texts, _numeric(frame[name]), name in KEYS)
        for name, texts in with_intervals(rest).items()
    ]
    turned = sum(one.characters for one in columns) > UPRIGHT
    comments = [
        rf"needs \usepackage{{booktabs,graphicx{',pdflscape' if turned else ''}}}",
        f"from {source}",
        *([note] if note else []),
        *(f"{naming.heading(name)}: {_plain(value, name)}" for name, value in constant.items()),
    ]
    lines = LINES * 3 // 5 if turned else LINES
    body = "\n\n\\bigskip\n".join(
        f"{FIT}{text}}}}}" for part in _parts(columns) for text in _tabulars(part, lines)
    )
    body = f"\\begin{{landscape}}\n{body}\n\\end{{landscape}}" if turned else body
    comment = "".join(f"% {' '.join(line.split())}\n" for line in comments)
    return f"{comment}\\begingroup\\sloppy\n{body}\n\n\\endgroup\n"


def _parts(columns: list[Column]) -> list[list[Column]]:
    """Cut a table that is too wide into parts of about equal numbers of columns."""
    keys = [one for one in columns if one.key]
    rest = [one for one in columns if not one.key]
    parts = [columns]
    for number in range(2, len(rest) + 1):
        if all(sum(one.characters for one in part) <= LONGEST for part in parts):
            break
        each = ceil(len(rest) / number)
        parts = [keys + rest[start : start + each] for start in range(0, len(rest), each)]
    return parts


def _tabulars(columns: list[Column], lines: int) -> list[str]:
    """Return tabulars of at most so many lines (one row at least), each with the head."""
    kinds = "".join(one.kind for one in columns)
    start = rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", _row(one.head for one in columns)
    blocks: list[list[str]] = [[]]
    used = 0
    for entries in zip(*(one.entries for one in columns), strict=True):
        height = max(
            ceil(len(entry) / PARAGRAPH) if one.kind[0] == "p" else 1
            for one, entry in zip(columns, entries, strict=True)
        )
        if blocks[-1] and used + height > lines:
            blocks.append([])
            used = 0
        blocks[-1].append(_row(map(escape, entries)))
        used += height
    end = r"\bottomrule", r"\end{tabular}"
    return ["\n".join([*start, r"\midrule", *block, *end]) for block in blocks]


def _row(entries: Iterable[str]) -> str:
    return " & ".join(entries) + r" \\"


def with_intervals(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Return the texts of each column, each number's interval beside it."""
    ends = {column: (f"{column}_low", f"{column}_high") for column in frame.columns}
    ends |= dict.fromkeys(ESTIMATES, ("ci_low", "ci_high"))
    ends = {column: pair for column, pair in ends.items() if {column, *pair} <= set(frame.columns)}
    kept = frame.columns.difference([end for pair in ends.values() for end in pair], sort=False)
    texts = {column: [_text(value, column) for value in frame[column]] for column in kept}
    for column, (low, high) in ends.items():
        bounds = zip(frame[low], frame[high], strict=True)
        texts[column] = [
            f"{text} [{_text(a, low)}, {_text(b, high)}]" if a == a else text
            for text, (a, b) in zip(texts[column], bounds, strict=True)
        ]
    return texts


def escape(text: str) -> str:
    r"""Return a text as LaTeX shows it: `a_b` is `a\_b`; long words may break."""
    words = (textwrap.wrap(word, WORD) for word in text.split())
    return " ".join(r"\allowbreak{}".join(map(_escape, pieces)) for pieces in words)


def _escape(text: str) -> str:
    return "".join(SPECIAL.get(one) or _character(one) for one in text)


def _character(one: str) -> str:
    """Return a character that LaTeX knows, or its code where only newer engines know it."""
    base, *accents = unicodedata.normalize("NFD", one)
    accented = ord(one) < 0x180 and base.isascii() and ACCENTS.issuperset(accents)
    if (accented and one.isprintable()) or one in PLAIN:
        return one
    code = f"{{[}}U+{ord(one):04X}{{]}}\\allowbreak{{}}"
    if not one.isprintable():
        return code
    return rf"{{\ifdefined\Umathchar {one}\else {code}\fi}}"


def _numeric(values: pd.Series) -> bool:
    return values.dtype.kind in "iuf"


def _text(value: object, column: str) -> str:
    """Return one entry of a table."""
    if value != value:
        return "--"
    plain = _plain(value, column)
    return plain.replace("-", "−") if isinstance(value, float) else plain


def _plain(value: object, column: str) -> str:
    if isinstance(value, float) and math.isfinite(value):
        whole, tiny = value == int(value), abs(value) < 0.00005
        return f"{value:.0f}" if whole else f"{value:.1e}" if tiny else f"{value:.4f}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) and DIGEST.fullmatch(value):
        return value[:12]
    return catalogue.metric_name(value) if column in NAMED else str(value)


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the stage's command line."""
    parser = cli.parser(__doc__, "--folder", "--metrics")
    parser.add_argument("--tables", type=Path, nargs="+", required=True, help="CSV files")
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
