"""Stage `rank`: put every image's visual tokens in the order in which a strategy keeps them.

Writes `order` int16 [I, N] and `coverage` float32 [I, N]: the evidence coverage of the first
1 ... N tokens of that order. Every budget of the strategy is a prefix.
"""

import argparse
import json
from pathlib import Path

from prunecal import console, plugins, store
from prunecal.engine import device
from prunecal.strategies import rank
from prunecal.strategies._similarity import coverage_curve

BATCH = 32  # images at a time


def main(arguments: argparse.Namespace) -> None:
    """Rank all images of a data set for one strategy."""
    import torch

    parameters = json.loads(arguments.parameters)
    where = device.pick(arguments.device, arguments.threads)
    label = plugins.load("strategies", arguments.family).LABEL
    file = store.open_arrays(arguments.features, framework="pt")
    ids = store.array_facts(file)["image_id"]
    features, saliency = file.get_tensor("features"), file.get_tensor("saliency")
    budget = features.shape[1]
    orders, coverages = [], []
    starts = range(0, len(ids), BATCH)
    for start in console.progress(starts, total=len(starts), what=f"rank {label}", unit="batch"):
        part = slice(start, start + BATCH)
        tokens = features[part].to(where, torch.float32)
        order = rank(
            arguments.family,
            tokens,
            saliency[part].to(where),
            budget,
            image_ids=ids[part],
            **parameters,
        )
        orders.append(order.to(torch.int16).cpu())
        coverages.append(coverage_curve(tokens, order).cpu())
    arrays = {"order": torch.cat(orders).numpy(), "coverage": torch.cat(coverages).numpy()}
    facts = {"image_id": ids, "family": arguments.family, "parameters": parameters}
    store.write_arrays(arguments.out, arrays, facts)


if __name__ == "__main__":
    parser = console.parser(__doc__)
    parser.add_argument("--family", required=True, help="the strategy's name")
    parser.add_argument("--parameters", required=True, help="JSON: the strategy's parameters")
    parser.add_argument("--features", type=Path, required=True, help="features.safetensors")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--out", type=Path, required=True, help="ranking.safetensors")
    console.run(main, parser.parse_args())
