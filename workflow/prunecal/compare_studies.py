"""Compare two finished studies: does pruning, or a strategy's parameter, act differently?

A study is given by its folder of tables (`results`, `results/{study}`). What is compared, and how,
is in `prunecal.statistics.interactions`.
"""

import argparse
from pathlib import Path

from prunecal.core import cli
from prunecal.core.errors import PrunecalError
from prunecal.figures.naming import strategy_name
from prunecal.report.studies import findings
from prunecal.statistics.interactions import COLUMNS, interactions, pairs, read_sides
from prunecal.statistics.tables import write_csv
from prunecal.storage import files


def main(arguments: argparse.Namespace) -> None:
    """Write interactions.csv, the same as LaTeX, the figure and the page."""
    import pandas as pd

    from prunecal.figures import interaction, labels, style
    from prunecal.report import html, latex

    if len(arguments.studies) != 2:
        raise PrunecalError(
            f"{len(arguments.studies)} studies cannot be compared: name two, for example "
            "`--studies results results/llava-1.5-7b`"
        )
    first, second = (read_sides(folder) for folder in arguments.studies)
    rows = [
        row
        for a, b in pairs(first, second)
        for row in interactions(a, b, arguments.level, strategy_name)
    ]
    write_csv(arguments.folder / "interactions.csv", rows, COLUMNS)
    cells = [cell for side in (*first, *second) for cell in side.scores.cells]
    known = {cell["strategy"]: cell | cell["parameters"] for cell in cells}
    names = labels.names_of(pd.DataFrame(known.values()).drop(columns="parameters"))
    latex.convert(arguments.folder / "interactions.csv", arguments.folder, names)
    style.use()
    style.save(interaction.draw(rows), arguments.folder, "interactions")
    words = findings(rows)
    picture = files.read_bytes(arguments.folder / "interactions.svg")
    page = arguments.folder / "comparison.html"
    html.write(page, "studies", title="Two studies side by side", findings=words, figure=picture)
    for sides, sentences in words.items():
        cli.log.info("%s", " ".join([sides, *sentences]))


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the stage's command line."""
    parser = cli.parser(__doc__, "--folder", "--level")
    parser.add_argument("--studies", type=Path, nargs="*", help="two folders, A and B")
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
