"""Compare the speed of SCOPE's selection with its definition as a plain loop, on the CPU.

    python -m prunecal.benchmark.ranking --out benchmarks/ranking.json

32 images of 576 tokens of width 1024 are ranked to K = 192 for alpha = 0 and alpha = 1. Both
methods alternate in every round; medians are written, with the largest relative shortfall from the
best gain in any step of either ranking, recomputed in float64.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from prunecal.core import cli
from prunecal.storage import files

if TYPE_CHECKING:
    from torch import Tensor

ALPHAS = (0.0, 1.0)


def main(arguments: argparse.Namespace) -> None:
    """Time both methods on two kinds of features and write one JSON file."""
    import torch

    from prunecal.strategies import rank_many

    torch.set_num_threads(arguments.threads)
    variants = [{"alpha": alpha} for alpha in ALPHAS]
    rows = []
    for kind, features in _features(arguments.images).items():
        generator = torch.Generator().manual_seed(1)
        saliency = torch.rand(features.shape[:2], generator=generator).softmax(dim=1)
        seconds = {"plain_loop": [], "engine": []}
        for _ in range(arguments.rounds):
            start = time.perf_counter()
            plain = [plain_loop(features, saliency, arguments.budget, alpha) for alpha in ALPHAS]
            middle = time.perf_counter()
            ours = rank_many("scope", features, saliency, arguments.budget, variants)
            seconds["plain_loop"].append(middle - start)
            seconds["engine"].append(time.perf_counter() - middle)
            cli.log.info("%s: %s", kind, {way: took[-1] for way, took in seconds.items()})
        median = {way: statistics.median(took) for way, took in seconds.items()}
        same = [(a == b).double().mean().item() for a, b in zip(plain, ours, strict=True)]
        regret = {
            way: max(
                worst_regret(order, features, saliency, alpha)
                for order, alpha in zip(orders, ALPHAS, strict=True)
            )
            for way, orders in (("plain_loop", plain), ("engine", ours))
        }
        rows.append(
            {
                "features": kind,
                **{f"{way}_s": took for way, took in median.items()},
                "ratio": median["plain_loop"] / median["engine"],
                "same_choices": min(same),
                **{f"{way}_regret": value for way, value in regret.items()},
            }
        )
    about = files.provenance(
        command=" ".join(["python -m prunecal.benchmark.ranking", *sys.argv[1:]]),
        device="cpu",
        threads=arguments.threads,
        rounds=arguments.rounds,
        images=arguments.images,
        budget=arguments.budget,
        alphas=list(ALPHAS),
    )
    files.write_json(arguments.out, {"about": about, "rows": rows})


def plain_loop(
    features: Tensor, saliency: Tensor, budget: int, alpha: float, gap_power: float = 1.0
) -> Tensor:
    """Select tokens by computing every gain in every step, as SCOPE is defined.

    Args:
        features: float32 [B, N, D].
        saliency: float32 [B, N].
        budget: tokens to select, 1 to N.
        alpha: saliency weight.
        gap_power: exponent of the coverage gap.

    Returns:
        int64 [B, budget] in order of selection.
    """
    import torch

    directions = torch.nn.functional.normalize(features, dim=-1)
    similarity = directions @ directions.transpose(1, 2)
    images, tokens, _ = similarity.shape
    every = torch.arange(images)
    covered = similarity.new_zeros(images, tokens)
    taken = torch.zeros(images, tokens, dtype=torch.bool)
    order = []
    for _ in range(budget):
        gain = ((similarity - covered[:, :, None]).clamp(min=0) ** gap_power).sum(dim=1)
        gain = (gain * saliency**alpha).masked_fill(taken, -torch.inf)
        token = gain.argmax(dim=1)
        order.append(token)
        taken[every, token] = True
        covered = torch.maximum(covered, similarity[every, :, token])
    return torch.stack(order, dim=1)


def worst_regret(
    order: Tensor, features: Tensor, saliency: Tensor, alpha: float, gap_power: float = 1.0
) -> float:
    """Return the largest relative shortfall from the best gain in any step of a ranking [B, K]."""
    import torch

    directions = torch.nn.functional.normalize(features.double(), dim=-1)
    similarity = directions @ directions.transpose(1, 2)
    every = torch.arange(len(order))
    covered = torch.zeros(order.shape[0], features.shape[1], dtype=torch.float64)
    taken = torch.zeros_like(covered, dtype=torch.bool)
    worst = 0.0
    for token in order.T:
        gain = ((similarity - covered[:, :, None]).clamp(min=0) ** gap_power).sum(dim=1)
        gain = (gain * saliency.double() ** alpha).masked_fill(taken, 0)
        best = gain.amax(dim=1)
        missed = best - gain[every, token]
        worst = max(worst, float((missed / best.clamp_min(1e-300)).max()))
        taken[every, token] = True
        covered = torch.maximum(covered, similarity[every, :, token])
    return worst


def _features(images: int) -> dict[str, Tensor]:
    """Return unstructured features, and features around 24 centres per image as real ones are."""
    import torch

    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(images, 576, 1024, generator=generator)
    centres = torch.randn(images, 24, 1024, generator=generator)
    which = torch.randint(24, (images, 576, 1), generator=generator).expand(-1, -1, 1024)
    return {"random": noise, "clustered": centres.gather(1, which) + 0.7 * noise}


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--budget", type=int, default=192, help="tokens to select")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    cli.run(main, parser.parse_args())
