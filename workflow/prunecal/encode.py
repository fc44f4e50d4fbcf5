"""Stage `encode`: the vision tower, once per image.

Writes `features` [I, N, D] in the model's dtype and `saliency` float32 [I, N].
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from prunecal.core import cli
from prunecal.core.errors import PrunecalError
from prunecal.engine import device
from prunecal.engine.arguments import add_model_arguments
from prunecal.models import load_model
from prunecal.sources import image_files, weights
from prunecal.storage import files

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

BATCH = 32  # images at a time; a tower's activations are small beside the language model's


def main(arguments: argparse.Namespace) -> None:
    """Encode all images of a data set."""
    import torch

    settings = json.loads(arguments.settings)
    where = device.pick(arguments.device, arguments.threads)
    described = files.read_object(arguments.manifest)
    source = json.loads(arguments.source)
    with weights.checked(source, described, arguments.weights) as folder:
        model = load_model(settings["family"], folder, settings, where)
    ids, features, saliency = [], [], []
    table = files.read_table(arguments.images, ["image_id", "bytes"])
    batches = cli.progress(
        _batches(table.to_pylist()),
        total=-(-len(table) // BATCH),
        what="encode",
        unit="batch",
    )
    with torch.inference_mode():
        for batch in batches:
            ids += [row["image_id"] for row in batch]
            images = [
                image_files.decoded(arguments.images, row["image_id"], row["bytes"])
                for row in batch
            ]
            tokens, attention = model.encode(images)
            features.append(tokens.cpu())
            saliency.append(attention.cpu())
    features, saliency = torch.cat(features), torch.cat(saliency)
    _refuse_not_finite(ids, features)
    facts = {"image_id": ids, "model": described["digest"], **settings}
    arrays = {"features": features, "saliency": saliency}
    files.write_tensors(arguments.out, arrays, facts, [arguments.images])
    cli.log.info("encoded %d images into %s", len(ids), list(features.shape))


def _batches(rows: list[dict]) -> Iterator[list[dict]]:
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]


def _refuse_not_finite(ids: list[str], features: torch.Tensor) -> None:
    finite = features.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        first = ids[int(finite.logical_not().nonzero()[0])]
        raise PrunecalError(
            f"the vision tower gives NaN or infinity for image {first!r}; check the weights, "
            "or use a wider dtype for this model"
        )


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    add_model_arguments(parser)
    parser.add_argument("--images", type=Path, required=True, help="images.parquet")
    parser.add_argument("--out", type=Path, required=True, help="features.safetensors")
    cli.run(main, parser.parse_args())
