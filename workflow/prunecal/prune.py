"""Remove unused cells and rankings from their stores, and stale files of killed runs."""

import argparse
from pathlib import Path

from prunecal.caching import cell_store
from prunecal.core import cli
from prunecal.core.errors import counted
from prunecal.storage import stale_files
from prunecal.study.paths import RANKING_STORE


def main(arguments: argparse.Namespace) -> None:
    """Remove stale files, unused cells and unused rankings; log how many."""
    stale = stale_files.remove(arguments.results)
    kept, removed = cell_store.prune(arguments.store, arguments.results)
    rankings = arguments.results / Path(RANKING_STORE).name
    ranked, dropped = cell_store.prune_rankings(rankings, arguments.results)
    cli.log.info("kept %s, removed %d", counted(ranked, "ranking"), dropped)
    half_written = counted(stale, "half-written file")
    cli.log.info("kept %s, removed %d and %s", counted(kept, "cell"), removed, half_written)


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("--store", type=Path, required=True, help="the cell store")
    parser.add_argument("--results", type=Path, required=True, help="folder of all results")
    cli.run(main, parser.parse_args())
