"""Stage "model": obtain the weights, check them, and write their manifest."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from prunecal.core import cli
from prunecal.models import check_model
from prunecal.sources import model_folder
from prunecal.sources.weights import obtain
from prunecal.storage import files
from prunecal.storage.digest_cache import NAME, DigestCache


def main(arguments: argparse.Namespace) -> None:
    """Obtain one model and write its manifest."""
    source = json.loads(arguments.params)
    arguments.manifest.parent.mkdir(parents=True, exist_ok=True)
    known = DigestCache(arguments.manifest.with_name(NAME))

    def inspect(folder: Path) -> None:
        if arguments.settings is not None:
            check_model(source["family"], folder, json.loads(arguments.settings))

    place = obtain(source, arguments.weights, inspect, known.digest)
    origin = {key: source[key] for key in ("repo", "revision", "train") if source.get(key)}
    described = model_folder.describe(place, source["family"], origin, known.digest)
    files.write_json(arguments.manifest, described)
    size = sum(file["size"] for file in described["files"])
    cli.log.info("%s: %d files, %.1f MB", arguments.model, len(described["files"]), size / 1e6)


def _arguments() -> argparse.Namespace:
    parser = cli.parser("Obtain a model and write its manifest.")
    parser.add_argument("--model", required=True, help="its name in the study")
    parser.add_argument("--params", required=True, help="JSON: family and source of the weights")
    parser.add_argument("--settings", help="JSON: how the model is run, to check its files against")
    parser.add_argument("--manifest", required=True, type=Path, help="JSON file to write")
    parser.add_argument("--weights", type=Path, help="folder for a model that is trained")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main, _arguments())
