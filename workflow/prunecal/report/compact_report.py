"""Snakemake's report in fewer bytes: its large items are deflated until it is opened.

Snakemake writes every figure, page and table into the report as a data URI: a third larger than the
file, however well that could be compressed, and not opened by browsers from 2 MB on. Here the
report holds large files deflated, and a script unpacks them before anything is shown; the rest of
the report stays as Snakemake wrote it, so that other programs find there what they expect.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
from pathlib import Path

from prunecal.core import cli
from prunecal.core.errors import PrunecalError
from prunecal.report import html
from prunecal.storage import files

LARGEST_URI = 300_000  # bytes of a data URI that stays

# no text of the report can hold this: Snakemake writes them as JSON, which escapes quotes
ITEMS = re.compile(r'<script id="results">\s*var results = (?={)')


def main(arguments: argparse.Namespace) -> None:
    """Write the report again, compact."""
    report = files.read_bytes(arguments.report).decode()
    with files.atomic(arguments.report, [arguments.made_from]) as path:
        path.write_text(compact(report), encoding="utf-8")


def compact(report: str) -> str:
    """Return a report of Snakemake that shows the same in fewer bytes.

    Raises:
        PrunecalError: it is none, or of a version of Snakemake that writes its items otherwise.
    """
    place = ITEMS.search(report)
    if place is None:
        raise PrunecalError(
            "Snakemake's report does not hold its items as versions 9.14 to 9.27 do; install one "
            "of these: pip install -c envs/requirements.txt -e ."
        )
    items, end = json.JSONDecoder().raw_decode(report, place.end())
    for item in items.values():
        if len(item["data_uri"]) > LARGEST_URI:
            content = item.pop("data_uri").partition(",")[2]
            item["packed"] = html.deflated(base64.b64decode(content))
    written = json.dumps(items).replace("</", "<\\/")
    script = html.environment().get_template("report.js.j2").render()
    return f"{report[: place.end()]}{written};\n{script}{report[end:]}"


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("report", type=Path, help="Snakemake's report in HTML, to write again")
    parser.add_argument("--made-from", type=Path, required=True, help="study.json")
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
