"""Stage `text_tower`: obtain the CLIP that embeds questions, and write its manifest."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from prunecal.core import cli
from prunecal.sources import text_tower
from prunecal.storage import files
from prunecal.storage.digest_cache import NAME, DigestCache


def main(arguments: argparse.Namespace) -> None:
    """Obtain a text tower and write its manifest."""
    source = json.loads(arguments.source)
    arguments.manifest.parent.mkdir(parents=True, exist_ok=True)
    known = DigestCache(arguments.manifest.with_name(NAME))
    place = text_tower.obtain(source, known.digest)
    described = text_tower.describe(place, source, known.digest)
    files.write_json(arguments.manifest, described)
    size = sum(file["size"] for file in described["files"])
    cli.log.info("text tower: %d files, %.1f MB", len(described["files"]), size / 1e6)


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("--source", required=True, help="JSON: the study's `text_tower`")
    parser.add_argument("--manifest", required=True, type=Path, help="JSON file to write")
    cli.run(main, parser.parse_args())
