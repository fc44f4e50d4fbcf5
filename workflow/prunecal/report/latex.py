"""Tables of the study as LaTeX (booktabs, longtable) for a paper, each made from its CSV.

python -m prunecal.report.latex --tables correlations.csv detectable.csv … --folder F
"""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from prunecal.calibration import catalogue
from prunecal.core import cli
from prunecal.core.errors import PrunecalError
from prunecal.figures import naming
from prunecal.report.latex_layout import arrange, set_column
from prunecal.storage import files

if TYPE_CHECKING:
    import pandas as pd

ESTIMATES = ("rho", "beyond", "interaction", "value")  # what a table's ci_low and ci_high are of
NAMED = ("metric", "with")  # columns that hold keys of metrics
KEYS = (*naming.CELL_COLUMNS, "load", "claim")  # columns that name a row
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
    with files.atomic(folder / f"{source.stem}.tex") as path:
        path.write_text(longtable(frame, source.name), encoding="utf-8")


def longtable(frame: pd.DataFrame, source: str, note: str | None = None) -> str:
    r"""Return a table for a paper: it breaks over pages and repeats its head.

    It is set as large as fits, along the long side of the paper and in parts if it must be.

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
    shown = with_intervals(rest)
    columns = [
        set_column(
            [escape(word) for word in naming.heading(name).split()],
            shown[name].tolist(),
            numeric=_numeric(frame[name]),
            key=name in KEYS,
        )
        for name in shown.columns
    ]
    layout, parts = arrange(columns)
    needed = "booktabs,longtable" + (",pdflscape" if layout.landscape else "")
    comments = [rf"needs \usepackage{{{needed}}}", f"from {source}", *([note] if note else [])]
    comments += [
        f"{naming.heading(name)}: {_plain(value, name)}" for name, value in constant.items()
    ]
    body = "".join(
        type(frame)({one.head: one.entries for one in part})
        .style.hide(axis="index")
        .to_latex(
            environment="longtable", hrules=True, column_format="".join(map(layout.kind, part))
        )
        for part in parts
    )
    return "".join(f"% {' '.join(line.split())}\n" for line in comments) + layout.around(body)


def with_intervals(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table of texts, escaped for LaTeX, with each number's interval beside it."""
    ends = {column: (f"{column}_low", f"{column}_high") for column in frame.columns}
    ends |= dict.fromkeys(ESTIMATES, ("ci_low", "ci_high"))
    ends = {column: pair for column, pair in ends.items() if {column, *pair} <= set(frame.columns)}
    kept = frame.columns.difference([end for pair in ends.values() for end in pair], sort=False)
    shown = {column: [_text(value, column) for value in frame[column]] for column in kept}
    for column, (low, high) in ends.items():
        bounds = zip(frame[low], frame[high], strict=True)
        shown[column] = [
            f"{text} [{_text(a, low)}, {_text(b, high)}]" if a == a else text
            for text, (a, b) in zip(shown[column], bounds, strict=True)
        ]
    return type(frame)(shown, columns=list(shown))


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
    if isinstance(value, str) and DIGEST.fullmatch(value):
        return value[:12]
    return catalogue.metric_name(value) if column in NAMED else str(value)


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the stage's command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("--tables", type=Path, nargs="+", required=True, help="CSV files")
    parser.add_argument("--folder", type=Path, required=True, help="where the LaTeX goes")
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
