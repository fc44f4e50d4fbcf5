"""Stage `rank`: put every image's visual tokens in the order in which a strategy keeps them.

Writes, for each variant of a strategy, `order` int16 [I, N] and `coverage` float32 [I, N]: the
evidence coverage of the first 1 ... N tokens of that order. Every budget is a prefix. Where images
have different numbers of tokens, both are flattened, and `tokens` and `layout` are those of the
features.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from prunecal.core import cli, plugins
from prunecal.engine import device
from prunecal.engine.coverage import cosine_similarity, coverage_curve
from prunecal.storage import files
from prunecal.storage.per_image import PerImage, together
from prunecal.strategies import rank_many

BATCH = 32  # images at a time
ENTRIES = 2**25  # of the similarity matrices held at a time


def main(arguments: argparse.Namespace) -> None:
    """Rank all images of a data set for all variants of a strategy."""
    import torch

    device.pick("cpu", arguments.threads)
    variants = json.loads(arguments.variants)
    strategy = plugins.load("strategies", arguments.family)
    what = f"rank {strategy.LABEL}"
    file = files.open_arrays(arguments.features, framework="pt")
    ids = file.facts["image_id"]
    features, saliency = PerImage(file, "features"), PerImage(file, "saliency")
    counts = features.counts
    ranked: list[dict[int, tuple[Any, Any]]] = [{} for _ in variants]  # by image
    batches = _batches(counts)
    for batch in cli.progress(batches, total=len(batches), what=what, unit="batch"):
        tokens = torch.stack([features[image] for image in batch]).float()
        attention = torch.stack([saliency[image] for image in batch])
        similarity = cosine_similarity(tokens)
        names = [ids[image] for image in batch]
        budget = counts[batch[0]]
        orders = rank_many(arguments.family, tokens, attention, budget, variants, image_ids=names)
        for variant, order in enumerate(orders):
            coverage = coverage_curve(similarity, order).numpy()
            pairs = zip(order.to(torch.int16).numpy(), coverage, strict=True)
            ranked[variant] |= zip(batch, pairs, strict=True)
    layout = {"layout": file.get_tensor("layout").numpy()} if "layout" in file.keys() else {}  # noqa: SIM118
    for variant, (parameters, path) in enumerate(zip(variants, arguments.out, strict=True)):
        orders, coverages = zip(*(ranked[variant][at] for at in range(len(ids))), strict=True)
        flat = together(orders)
        arrays = {"order": flat.values, "coverage": together(coverages).values, **layout}
        if flat.tokens is not None:
            arrays["tokens"] = flat.tokens
        facts = {"image_id": ids, "family": arguments.family, "parameters": parameters}
        files.write_arrays(path, arrays, facts, [arguments.features])


def _batches(counts: list[int]) -> list[list[int]]:
    """Group images of equal numbers of tokens, as many at a time as memory takes."""
    by_count: dict[int, list[int]] = {}
    for image, count in enumerate(counts):
        by_count.setdefault(count, []).append(image)
    batches = []
    for count, images in by_count.items():
        size = max(1, min(BATCH, ENTRIES // count**2))
        batches += [images[start : start + size] for start in range(0, len(images), size)]
    return batches


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("--family", required=True, help="the strategy's name")
    parser.add_argument("--variants", required=True, help="JSON: a list of its parameters")
    parser.add_argument("--features", type=Path, required=True, help="features.safetensors")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument(
        "--out", type=Path, nargs="+", required=True, help="a ranking.safetensors per variant"
    )
    cli.run(main, parser.parse_args())
