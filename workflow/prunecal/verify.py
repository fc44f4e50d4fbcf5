"""Hold every result against the checksum that it was written with.

Each file of a stage has its SHA-256 beside it, in a hidden file that `sha256sum --check` reads too.
"""

import argparse
from pathlib import Path

from prunecal import console, store
from prunecal.errors import PrunecalError


def damaged_files(results: Path) -> list[Path]:
    """List the files below a folder that are missing or differ from their checksum, sorted."""
    recorded = sorted(results.rglob(".*.sha256"))
    files = [path.with_name(path.name[1:].removesuffix(".sha256")) for path in recorded]
    checked = console.progress(files, total=len(files), what="verify", unit="file")
    return [path for path in checked if not store.undamaged(path)]


def main(arguments: argparse.Namespace) -> None:
    """Report damaged files; with --repair, remove them so that the next run makes them again."""
    if not arguments.results.is_dir():
        raise PrunecalError(f"{arguments.results} is not a folder; name the one with the results")
    damaged = damaged_files(arguments.results)
    for path in damaged:
        console.log.warning("%s is missing or not as it was written", path)
        if arguments.repair:
            path.unlink(missing_ok=True)
            store.checksum_file(path).unlink()
    if damaged and not arguments.repair:
        raise PrunecalError(
            f"{len(damaged)} damaged files below {arguments.results}; "
            "`snakemake repair` removes them, the next run makes them again"
        )
    console.log.info("removed %d files" if damaged else "%d damaged files", len(damaged))


if __name__ == "__main__":
    parser = console.parser(__doc__)
    parser.add_argument("results", type=Path, help="folder to check")
    parser.add_argument("--repair", action="store_true", help="remove damaged files")
    console.run(main, parser.parse_args())
