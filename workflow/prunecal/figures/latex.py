"""Tables of the study as LaTeX (booktabs, longtable) for a paper, each made from its CSV.

python -m prunecal.figures.latex --tables correlations.csv detectable.csv … --folder F
"""

from __future__ import annotations

import argparse
import math
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from prunecal import console, store
from prunecal.errors import PrunecalError
from prunecal.figures import names

if TYPE_CHECKING:
    import pandas as pd

ESTIMATES = ("rho", "beyond", "interaction", "value")  # what a table's ci_low and ci_high are of
NAMED = ("metric", "with")  # columns that hold keys of metrics
DIGEST = re.compile("sha256|digest|revision")  # names of columns whose texts are shown shortened
PARAGRAPH = 130.0  # points at 10 pt: wider texts are broken over lines
WIDTHS = dict.fromkeys(" .,:;[]()|!'ijlt", 3.2)  # points; other characters are about 5.2
WIDTHS |= dict.fromkeys("ABCDEFGHIJKLMNOPQRSTUVWXYZmw+−=<>%Δ", 7.8)
HEAD = 10  # letters: headings are broken where they would make a column wider than this
BREAK = r" \\ "  # between the lines of one entry
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


class Layout(NamedTuple):
    """A way to set a table: how large, on which side of the paper, intervals beside or below."""

    size: str
    scale: float
    landscape: bool = False
    stacked: bool = False

    @property
    def space(self) -> float:
        """Points between a column and its edge."""
        return 6.0 if self.scale == 1 else 3.0

    @property
    def room(self) -> float:
        """Points across the text of LaTeX's article, which is narrower than others' pages."""
        return 550.0 if self.landscape else 345.0

    def around(self) -> tuple[str, str]:
        """Return what stands before and after the table."""
        if self == LAYOUTS[0]:
            return "", ""
        start = rf"\begingroup\{self.size}\setlength{{\tabcolsep}}{{{self.space:g}pt}}" + "\n"
        if not self.landscape:
            return start, "\\endgroup\n"
        return f"\\begin{{landscape}}\n{start}", "\\endgroup\n\\end{landscape}\n"


class Column(NamedTuple):
    """A column as LaTeX: its head and entries, how it is aligned, its width in points."""

    head: str
    entries: list[str]
    kind: str
    width: float


LAYOUTS = (  # the first that a table fits is taken
    Layout("normalsize", 1.0),
    Layout("footnotesize", 0.85),
    Layout("footnotesize", 0.85, landscape=True),
    Layout("scriptsize", 0.8, landscape=True),
    Layout("scriptsize", 0.8, landscape=True, stacked=True),
    Layout("tiny", 0.68, landscape=True, stacked=True),
)


def main(arguments: argparse.Namespace) -> None:
    """Write `{name}.tex` for each `{name}.csv`."""
    for source in arguments.tables:
        convert(source, arguments.folder)


def convert(source: Path, folder: Path) -> None:
    """Write a CSV table of the workflow as LaTeX, under the same name.

    Raises:
        PrunecalError: the file is missing, empty or no CSV.
    """
    import pandas as pd

    try:  # empty is missing, but a subset may well be called "NA"
        frame = pd.read_csv(source, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise PrunecalError(
            f"{source} is no CSV table ({error}); delete it and run the workflow again"
        ) from error
    with store.atomic(folder / f"{source.stem}.tex") as path:
        path.write_text(longtable(frame, source.name), encoding="utf-8")


def longtable(frame: pd.DataFrame, source: str, note: str | None = None) -> str:
    r"""Return a table for a paper: it breaks over pages and repeats its head.

    It is set as large as fits: smaller, then on the long side of the paper, if it must be.

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
    for layout in LAYOUTS:
        columns = _columns(rest, layout)
        if sum(column.width + 2 * layout.space for column in columns) <= layout.room:
            break
    needed = "booktabs,longtable" + (",pdflscape" if layout.landscape else "")
    comments = [rf"needs \usepackage{{{needed}}}", f"from {source}", *([note] if note else [])]
    comments += [
        f"{names.heading(column)}: {_plain(value, column)}" for column, value in constant.items()
    ]
    shown = type(frame)({column.head: column.entries for column in columns})
    table = shown.style.hide(axis="index").to_latex(
        environment="longtable", hrules=True, column_format="".join(one.kind for one in columns)
    )
    start, end = layout.around()
    return "".join(f"% {' '.join(line.split())}\n" for line in comments) + start + table + end


def with_intervals(frame: pd.DataFrame, between: str = " ") -> pd.DataFrame:
    """Return a table of texts, escaped for LaTeX, with each number's interval after it."""
    ends = {column: (f"{column}_low", f"{column}_high") for column in frame.columns}
    ends |= dict.fromkeys(ESTIMATES, ("ci_low", "ci_high"))
    ends = {column: pair for column, pair in ends.items() if {column, *pair} <= set(frame.columns)}
    kept = frame.columns.difference([end for pair in ends.values() for end in pair], sort=False)
    shown = {column: [_text(value, column) for value in frame[column]] for column in kept}
    for column, (low, high) in ends.items():
        bounds = zip(frame[low], frame[high], strict=True)
        shown[column] = [
            f"{text}{between}{{[}}{_text(a, low)}, {_text(b, high)}{{]}}" if a == a else text
            for text, (a, b) in zip(shown[column], bounds, strict=True)
        ]
    return type(frame)(shown, columns=list(shown))


def _columns(frame: pd.DataFrame, layout: Layout) -> list[Column]:
    """Set each column of a table: numbers to the right, long texts as paragraphs."""
    found = []
    shown = with_intervals(frame, BREAK if layout.stacked else " ")
    for name in shown.columns:
        entries, title = shown[name].tolist(), names.heading(name)
        width = max(map(text_width, entries), default=0.0)
        side = "r" if _numeric(frame[name]) else "l"
        if width > PARAGRAPH and side == "l":
            words = " ".join([escape(title), *entries]).split()
            width = max(PARAGRAPH, *map(text_width, words)) * layout.scale
            found.append(Column(escape(title), entries, f"p{{{width:.0f}pt}}", width))
            continue
        letters = max(HEAD, int(width / 5.2), *map(len, title.split()))
        title = BREAK.join(map(escape, textwrap.wrap(title, letters, break_long_words=False)))
        width = max(width, text_width(title)) * layout.scale
        entries = [_stack(entry, side) for entry in entries]
        found.append(Column(_stack(title, side), entries, side, width))
    return found


def _stack(text: str, side: str) -> str:
    return rf"\shortstack[{side}]{{{text}}}" if BREAK in text else text


def text_width(text: str) -> float:
    """Estimate the width of a LaTeX text's longest line in points, at 10 pt."""
    plain = re.sub(r"\\[a-zA-Z]+(\{\})?", "m", text.replace(BREAK, "\n"))
    lines = re.sub(r"[{}$\\]", "", plain).split("\n")
    return max(sum(WIDTHS.get(character, 5.2) for character in line) for line in lines)


def escape(text: str) -> str:
    r"""Return a text as LaTeX shows it: `a_b` is `a\_b`."""
    return "".join(SPECIAL.get(character, character) for character in " ".join(text.split()))


def _numeric(values: pd.Series) -> bool:
    return values.dtype.kind in "iuf"


def _text(value: object, column: str) -> str:
    """Return one entry of a table."""
    if value != value:
        return "--"
    plain = _plain(value, column)
    return escape(plain.replace("-", "−") if isinstance(value, float) else plain)


def _plain(value: object, column: str) -> str:
    if isinstance(value, float) and math.isfinite(value):
        whole, tiny = value == int(value), abs(value) < 0.00005
        return f"{value:.0f}" if whole else f"{value:.1e}" if tiny else f"{value:.4f}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) and DIGEST.search(column):
        return value[:12]
    return names.metric_name(value) if column in NAMED else str(value)


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the stage's command line."""
    parser = console.parser(__doc__)
    parser.add_argument("--tables", type=Path, nargs="+", required=True, help="CSV files")
    parser.add_argument("--folder", type=Path, required=True, help="where the LaTeX goes")
    return parser.parse_args(command)


if __name__ == "__main__":
    console.run(main, arguments_of())
