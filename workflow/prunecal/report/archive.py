"""All tables of the report in one compressed file, with a text that says what each holds."""

from __future__ import annotations

import argparse
import zipfile  # noqa: TID251  one is written, none is opened
from pathlib import Path

from prunecal.core import cli
from prunecal.storage import files

README = "README.txt"
WRITTEN = (1980, 1, 1, 0, 0, 0)  # the earliest that the format knows: equal tables, equal bytes


def main(arguments: argparse.Namespace) -> None:
    """Write the archive."""
    contents = {path.name: files.read_bytes(path) for path in sorted(arguments.tables)}
    contents[README] = readme(arguments.captions).encode()
    with (
        files.atomic(arguments.output, files.read_so_far()) as path,
        zipfile.ZipFile(path, "w") as archive,
    ):
        for name, content in contents.items():
            archive.writestr(_entry(name), content, compresslevel=9)


def readme(captions: list[Path]) -> str:
    """Return the captions of tables, each under the name of its table.

    Args:
        captions: files NAME_table.rst.
    """
    texts = (
        f"{path.stem.removesuffix('_table')}.csv, .tex\n{files.read_bytes(path).decode().strip()}\n"
        for path in captions
    )
    return "\n".join(text.replace("``", "") for text in texts)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, WRITTEN)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("--tables", type=Path, nargs="+", required=True, help="CSV and LaTeX")
    parser.add_argument("--captions", type=Path, nargs="+", required=True, help="NAME_table.rst")
    parser.add_argument("--output", type=Path, required=True, help="ZIP to write")
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
