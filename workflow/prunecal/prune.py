"""Empty the cell store of what no result uses, and all results of what killed runs left."""

import argparse
from pathlib import Path

from prunecal import cellstore, console, leftovers


def main(arguments: argparse.Namespace) -> None:
    """Remove half-written files that no process writes, and unused cells; say how many."""
    halves = leftovers.remove(arguments.results)
    kept, removed = cellstore.prune(arguments.store, arguments.results)
    console.log.info("kept %d cells, removed %d and %d half-written files", kept, removed, halves)


if __name__ == "__main__":
    parser = console.parser(__doc__)
    parser.add_argument("--store", type=Path, required=True, help="the cell store")
    parser.add_argument("--results", type=Path, required=True, help="folder of all results")
    console.run(main, parser.parse_args())
