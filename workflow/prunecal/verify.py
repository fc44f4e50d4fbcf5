"""Hold every result against the checksum that it was written with, and against its origin.

Each file of a stage has its SHA-256 beside it, in a hidden file that `sha256sum --check` reads too;
the files of a trained model have theirs in the model's manifest. Whole files are held against the
code that is here now, features and cells also against the weights and inputs (`caching.lineage`).
"""

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

from prunecal.caching import lineage
from prunecal.core import cli
from prunecal.core.errors import PrunecalError
from prunecal.storage import files
from prunecal.storage.checksums import file_digest


def damaged_files(results: Path) -> list[Path]:
    """List the files below a folder that are missing or differ from their checksum, sorted."""
    recorded = results.rglob(".*.sha256")
    paths = sorted(path.with_name(path.name[1:].removesuffix(".sha256")) for path in recorded)
    checked = cli.progress(paths, total=len(paths), what="verify", unit="file")
    damaged = [path for path in checked if not files.undamaged(path)]
    return sorted([*damaged, *_damaged_weights(results)])


def _damaged_weights(results: Path) -> Iterator[Path]:
    for path in results.glob("models/*/manifest.json"):
        if not files.undamaged(path):
            continue  # it is on the list itself
        described = files.read_object(path)
        for file in described["files"] if "train" in described else []:
            mine = path.parent / "weights" / file["name"]
            if not mine.is_file() or file_digest(mine) != file["sha256"]:
                yield mine


def main(arguments: argparse.Namespace) -> None:
    """Name damaged files and those of another origin; with --repair, remove the damaged ones.

    Those of another origin are whole, and may have cost much: no more is done than to name them.
    With --record, write the checksum of one file that another program made.
    """
    if arguments.record:
        if not arguments.results.is_file():
            raise PrunecalError(f"{arguments.results} is no file, so it has no checksum to record")
        files.record(arguments.results)
        return
    if not arguments.results.is_dir():
        raise PrunecalError(f"{arguments.results} is not a folder; name the one with the results")
    damaged = damaged_files(arguments.results)
    for path in damaged:
        cli.log.warning("%s is missing or not as it was written", path)
        if arguments.repair:
            _remove(path)
    if arguments.repair:
        cli.log.info("removed %d files", len(damaged))
    if arguments.other_versions:
        _remove_other_versions(arguments.results)
    if arguments.repair or arguments.other_versions:
        return
    foreign = lineage.foreign_files(arguments.results, damaged)
    for path, reason in foreign:
        cli.log.warning("%s was made %s", path, reason)
    for remark in lineage.version_remarks(arguments.results):
        cli.log.warning(
            "%s; `snakemake repair_versions` removes the cells of other versions", remark
        )
    faults = []
    if damaged:
        faults.append(
            f"{len(damaged)} damaged files below {arguments.results}; "
            "`snakemake repair` removes them, the next run makes them again"
        )
    if foreign:
        faults.append(
            f"{len(foreign)} files of another origin below {arguments.results}; a run makes those "
            "again whose code or weights changed; delete any others that should not be there"
        )
    if faults:
        raise PrunecalError("; ".join(faults))
    cli.log.info("0 damaged files")


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    files.checksum_file(path).unlink(missing_ok=True)
    if path.parent.name == "weights":  # the workflow knows a model by its weights and manifest
        (path.parent / "model.safetensors").unlink(missing_ok=True)
        (path.parents[1] / "manifest.json").unlink(missing_ok=True)
        files.checksum_file(path.parents[1] / "manifest.json").unlink(missing_ok=True)


def _remove_other_versions(results: Path) -> None:
    """Remove the cells that others than the installed versions made, out of the store too."""
    cells = lineage.cells_of_other_versions(results)
    for folder in [*cells, *lineage.cells_of_other_versions(results, lineage.STORED_BELOW)]:
        shutil.rmtree(folder)
    versions = " and ".join(lineage.LIBRARIES)
    cli.log.info("removed %d cells of other versions of %s", len(cells), versions)


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("results", type=Path, help="folder to check, or the file to record")
    wish = parser.add_mutually_exclusive_group()
    wish.add_argument("--repair", action="store_true", help="remove damaged files")
    wish.add_argument("--record", action="store_true", help="write the checksum of one file")
    wish.add_argument(
        "--other-versions",
        action="store_true",
        help="remove the cells that others than the installed torch and transformers made",
    )
    cli.run(main, parser.parse_args())
