"""Stage `encode`: the vision tower, once per image.

Writes `features` [I, N, D] in the model's dtype and `saliency` float32 [I, N], of a model with
DeepStack also `deep/0`, ... [I, N, H]. Where images have different numbers of tokens, the first two
axes are flattened, and `tokens` int32 [I] has each image's number; `layout` int32 [I, ...] says how
the tokens of a model with varying N lie in the image, `grids` int32 [G, 3] has image, rows and
columns of each grid of patches, and `tiles` int32 [I, N] the tile of each token, if tiles are
ranked apart. Writes a file, too, for each further signal that a strategy of the study reads (see
`engine.interfaces.Signal`), whose array is `signal`.

With --budget images are made smaller before the tower to about so many tokens (`downsample`), and
`covered` float32 [I] is the evidence coverage of these.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecal.core import cli
from prunecal.core.errors import PrunecalError
from prunecal.engine import device
from prunecal.engine.arguments import add_model_arguments
from prunecal.engine.coverage import coverage_of_tokens
from prunecal.models import load_model
from prunecal.sources import image_files, weights
from prunecal.storage import files
from prunecal.storage.arrays import open_arrays
from prunecal.storage.per_image import GRIDS, TILES, PerImage
from prunecal.storage.spooled import Spool
from prunecal.study.budgets import Budget, kept_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from PIL.Image import Image
    from torch import Tensor

    from prunecal.engine.interfaces import Encoded

Row = dict[str, Any]  # of images.parquet: image_id, bytes
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
    reduce = None if arguments.budget is None else _Smaller(model, arguments)
    encoder = model if reduce is None else reduce
    ids, layouts, grids = [], [], []
    signals = {path.stem: Spool(path) for path in arguments.signals}
    if signals and not hasattr(model, "encode_signals"):
        raise PrunecalError(
            f"models of family {settings['family']!r} do not give {', '.join(signals)}, which a "
            "strategy of the study reads; leave that strategy out"
        )
    count, rows = files.read_rows(arguments.images, ["image_id", "bytes"])
    rows = cli.progress(rows, total=count, what="encode", unit="image")
    with torch.inference_mode(), Spool(arguments.out) as spool, contextlib.ExitStack() as spools:
        for one in signals.values():
            spools.enter_context(one)
        for batch in _batches(arguments.images, rows):
            encoded, more = _encode(arguments.images, encoder, batch, list(signals))
            for name, values in more.items():
                for value in values:
                    signals[name].add("signal", value)
            for row, image in zip(batch, encoded, strict=True):
                refuse_unsound(settings["family"], row["image_id"], image)
                spool.add("features", image.features)
                spool.add("saliency", image.saliency)
                for layer, deep in enumerate(image.deep):
                    spool.add(f"deep/{layer}", deep)
                if image.tiles is not None:
                    spool.add(TILES, image.tiles)
                grids += [(len(ids), *sides) for sides in image.grids]
                ids.append(row["image_id"])
                layouts.append(image.layout)
        facts = {"image_id": ids, "model": described["digest"], **settings}
        listed = {"layout": layouts if layouts[0] else [], GRIDS: grids}
        small = {
            name: torch.tensor(rows, dtype=torch.int32) for name, rows in listed.items() if rows
        }
        sources = [arguments.images]
        if reduce is not None:
            small["covered"] = torch.cat(reduce.covered)
            facts["budget"] = arguments.budget
            sources.append(arguments.whole)
        counts = spool.write(facts, sources, small)
        for one in signals.values():
            one.write(facts, [arguments.images], {})
    cli.log.info("encoded %d images into %s tokens", len(ids), _range(counts))


class _Smaller:
    """Encodes images made smaller before the tower, see `prunecal.strategies.downsample`.

    Args:
        model: of a family that has `encode_smaller`.
        arguments: with the budget, and the features of the whole images in the same order.

    Attributes:
        covered: of each image encoded so far float32 [1], the evidence coverage of its tokens.
    """

    def __init__(self, model: Any, arguments: argparse.Namespace) -> None:
        self.model = model
        self.whole = PerImage(open_arrays(arguments.whole, framework="pt"), "features")
        text = arguments.budget
        self.budget: Budget = int(text) if text.isdigit() else text
        self.covered: list[Tensor] = []

    def encode(self, images: list[Image]) -> list[Encoded]:
        """Return the next images with about as many tokens as the budget keeps of each."""
        places = range(len(self.covered), len(self.covered) + len(images))
        tokens = [kept_tokens(self.budget, self.whole.counts[place]) for place in places]
        encoded = self.model.encode_smaller(images, tokens)
        for place, image in zip(places, encoded, strict=True):
            whole, fewer = self.whole[place], image.features.cpu()
            self.covered.append(coverage_of_tokens(whole[None], fewer[None]))
        return encoded


def _range(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _batches(where: Path, rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield images, not decoded, at most BATCH and PIXELS of them at a time, but at least one."""
    batch: list[Row] = []
    pixels = 0
    for row in rows:
        more = image_files.pixels_of_square(where, row["image_id"], row["bytes"])
        if batch and (len(batch) == BATCH or pixels + more > PIXELS):
            yield batch
            batch, pixels = [], 0
        batch.append(row)
        pixels += more
    if batch:
        yield batch


def _encode(
    where: Path, model: Any, batch: list[Row], signals: list[str]
) -> tuple[list[Encoded], dict[str, Tensor]]:
    """Return images as the model, a `VisionEncoder`, encodes them, and signals by their names.

    Decoded images are held only here: large ones are much of the job's memory.
    """
    images = [image_files.decoded(where, row["image_id"], row["bytes"]) for row in batch]
    try:
        more: dict[str, Tensor] = {}
        if signals:
            encoded, more = model.encode_signals(images, signals)
        else:
            encoded = model.encode(images)
    except MemoryError as error:
        raise PrunecalError(
            f"{where}: {len(batch)} images from {batch[0]['image_id']!r} on do not fit into "
            "memory; shrink them, or ask for more memory"
        ) from error
    if len(encoded) != len(batch):
        raise PrunecalError(
            f"the model encoded {len(encoded)} of {len(batch)} images; have its `encode` return an "
            "Encoded for each"
        )
    return encoded, more


def refuse_unsound(family: str, image_id: str, image: Encoded) -> None:
    """Refuse what a model family's `encode` returned of an image if no strategy could rank it.

    Raises:
        PrunecalError: a value is NaN or infinite, or tokens and saliency do not fit each other.
    """
    import torch

    tokens, saliency = image.features, image.saliency
    if tokens.ndim != 2 or saliency.shape != tokens.shape[:1] or not len(tokens):
        raise PrunecalError(
            f"`encode` of the model family {family!r} gives the image {image_id!r} features "
            f"{list(tokens.shape)} and saliency {list(saliency.shape)}; have it give [N, D] and "
            "[N], without CLS"
        )
    if saliency.dtype != torch.float32:
        raise PrunecalError(
            f"`encode` of the model family {family!r} gives saliency as {saliency.dtype}; have it "
            "give torch.float32"
        )
    if not all(values.isfinite().all() for values in (tokens, saliency, *image.deep)):
        raise PrunecalError(
            f"the vision tower gives NaN or infinity for image {image_id!r}; check the weights, "
            "or use a wider dtype for this model"
        )


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    add_model_arguments(parser)
    parser.add_argument("--images", type=Path, required=True, help="images.parquet")
    parser.add_argument("--out", type=Path, required=True, help="features.safetensors")
    parser.add_argument(
        "--signals", type=Path, nargs="*", default=[], help="a file for each, named after it"
    )
    parser.add_argument("--budget", help="make images smaller, to about so many tokens")
    parser.add_argument(
        "--whole", type=Path, help="with --budget: features of the images as they are"
    )
    cli.run(main, parser.parse_args())
