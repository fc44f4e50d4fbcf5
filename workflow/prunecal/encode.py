"""Stage `encode`: the vision tower, once per image.

Writes `features` [I, N, D] in the model's dtype and `saliency` float32 [I, N].
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecal.core import cli
from prunecal.core.errors import PrunecalError
from prunecal.engine import device
from prunecal.engine.arguments import add_model_arguments
from prunecal.models import load_model
from prunecal.sources import image_files, weights
from prunecal.storage import files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import torch
    from PIL.Image import Image
    from torch import Tensor

    from prunecal.models import VisionLanguageModel

BATCH = 32  # images at a time; a tower's activations are small beside the language model's
PIXELS = image_files.LONGEST_SIDE**2  # of the squares held at a time; photographs take fewer images


def main(arguments: argparse.Namespace) -> None:
    """Encode all images of a data set."""
    import torch

    settings = json.loads(arguments.settings)
    where = device.pick(arguments.device, arguments.threads)
    described = files.read_object(arguments.manifest)
    source = json.loads(arguments.source)
    with weights.checked(source, described, arguments.weights) as folder:
        model = load_model(settings["family"], folder, settings, where, "vision")
    ids, features, saliency = [], [], []
    table = files.read_table(arguments.images, ["image_id", "bytes"])
    rows = cli.progress(table.to_pylist(), total=len(table), what="encode", unit="image")
    with torch.inference_mode():
        for batch in _batches(arguments.images, rows):
            ids += batch
            tokens, attention = _encode(arguments.images, model, batch)
            features.append(tokens.cpu())
            saliency.append(attention.cpu())
    features, saliency = torch.cat(features), torch.cat(saliency)
    _refuse_not_finite(ids, features)
    facts = {"image_id": ids, "model": described["digest"], **settings}
    arrays = {"features": features, "saliency": saliency}
    files.write_tensors(arguments.out, arrays, facts, [arguments.images])
    cli.log.info("encoded %d images into %s", len(ids), list(features.shape))


def _batches(where: Path, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Image]]:
    """Yield decoded images by id, at most BATCH and PIXELS of them at a time, but at least one."""
    batch: dict[str, Image] = {}
    pixels = 0
    for row in rows:
        image = image_files.decoded(where, row["image_id"], row["bytes"])
        pixels += image_files.square_pixels(image)
        if batch and (len(batch) == BATCH or pixels > PIXELS):
            yield batch
            batch, pixels = {}, image_files.square_pixels(image)
        batch[row["image_id"]] = image
    if batch:
        yield batch


def _encode(
    where: Path, model: VisionLanguageModel, batch: Mapping[str, Image]
) -> tuple[Tensor, Tensor]:
    try:
        return model.encode(list(batch.values()))
    except MemoryError as error:
        raise PrunecalError(
            f"{where}: {len(batch)} images from {next(iter(batch))!r} on do not fit into "
            "memory; shrink them, or ask for more memory"
        ) from error


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
