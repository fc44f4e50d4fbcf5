"""Stage `rank`: put every image's visual tokens in the order in which a strategy keeps them.

Writes, for each variant of a strategy, `order` int16 [I, N] and `coverage` float32 [I, N]: the
evidence coverage of the first 1 ... N tokens of that order. Every budget is a prefix.
"""

import argparse
import json
from pathlib import Path

from prunecal.core import cli, plugins
from prunecal.engine import device
from prunecal.engine.coverage import cosine_similarity, coverage_curve
from prunecal.storage import files
from prunecal.strategies import rank_many

BATCH = 32  # images at a time


def main(arguments: argparse.Namespace) -> None:
    """Rank all images of a data set for all variants of a strategy."""
    import torch

    device.pick("cpu", arguments.threads)
    variants = json.loads(arguments.variants)
    strategy = plugins.load("strategies", arguments.family)
    what = f"rank {strategy.LABEL}"
    file = files.open_arrays(arguments.features, framework="pt")
    ids = file.facts["image_id"]
    features, saliency = file.get_tensor("features"), file.get_tensor("saliency")
    budget = features.shape[1]
    orders, coverages = [[] for _ in variants], [[] for _ in variants]
    starts = range(0, len(ids), BATCH)
    for start in cli.progress(starts, total=len(starts), what=what, unit="batch"):
        part = slice(start, start + BATCH)
        tokens = features[part].float()
        similarity = cosine_similarity(tokens)
        ranked = rank_many(
            arguments.family, tokens, saliency[part], budget, variants, image_ids=ids[part]
        )
        for variant, order in enumerate(ranked):
            orders[variant].append(order.to(torch.int16))
            coverages[variant].append(coverage_curve(similarity, order))
    for variant, (parameters, path) in enumerate(zip(variants, arguments.out, strict=True)):
        arrays = {
            "order": torch.cat(orders[variant]).numpy(),
            "coverage": torch.cat(coverages[variant]).numpy(),
        }
        facts = {"image_id": ids, "family": arguments.family, "parameters": parameters}
        files.write_arrays(path, arrays, facts, [arguments.features])


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
