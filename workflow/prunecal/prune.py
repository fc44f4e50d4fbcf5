"""Empty the cell store of the cells that no result uses any more."""

import argparse
from pathlib import Path

from prunecal import cellstore, console


def main(arguments: argparse.Namespace) -> None:
    """Remove unused cells and say how many."""
    kept, removed = cellstore.prune(arguments.store, arguments.results)
    console.log.info("kept %d cells, removed %d", kept, removed)


if __name__ == "__main__":
    parser = console.parser(__doc__)
    parser.add_argument("--store", type=Path, required=True, help="the cell store")
    parser.add_argument("--results", type=Path, required=True, help="folder of all results")
    console.run(main, parser.parse_args())
