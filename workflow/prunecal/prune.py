"""Remove unused cells and rankings from their stores, and stale files of killed runs."""

import argparse
from pathlib import Path

from prunecal.caching import cell_store
from prunecal.core import cli
from prunecal.storage import stale_files
from prunecal.study.paths import RANKING_STORE


def main(arguments: argparse.Namespace) -> None:
    """Remove stale files, unused cells and unused rankings; log how many."""
    stale = stale_files.remove(arguments.results)
    kept, removed = cell_store.prune(arguments.store, arguments.results)
    rankings = arguments.results / Path(RANKING_STORE).name
    cli.log.info(
        "kept %d rankings, removed %d", *cell_store.prune_rankings(rankings, arguments.results)
    )
    cli.log.info("kept %d cells, removed %d and %d half-written files", kept, removed, stale)


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("--store", type=Path, required=True, help="the cell store")
    parser.add_argument("--results", type=Path, required=True, help="folder of all results")
    cli.run(main, parser.parse_args())
