"""Stage `rank`: the visual tokens that a strategy keeps of every image, or how it merges them.

Writes, for each variant of a strategy, `order` int16 [I, N] and `coverage` float32 [I, N]: the
evidence coverage of the first 1 ... N tokens of that order. Every budget is a prefix. Where images
have different numbers of tokens, both are flattened, and `tokens` and `layout` are those of the
features.

If budgets are not nested, there are instead for each budget K `kept/K` int16 [I, K] and
`covered/K` float32 [I]; of a strategy that merges, instead of `kept`, the weights of CLS and the
patches in each token: `places/K` int64, flat places in [I, K, N + 1], ascending, and `weight/K`
float32.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecal.core import cli, plugins
from prunecal.core.errors import PrunecalError
from prunecal.engine import device
from prunecal.engine.coverage import (
    cosine_similarity,
    coverage,
    coverage_curve,
    coverage_of_tokens,
)
from prunecal.storage import files
from prunecal.storage.per_image import PerImage, together
from prunecal.strategies import merge_many, rank_many

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from torch import Tensor

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
    signals = _signals(strategy, arguments.signals, ids)
    if arguments.budgets:
        _rank_budgets(arguments, strategy, variants, features, saliency, signals, ids)
        return
    ranked: list[dict[int, tuple[Any, Any]]] = [{} for _ in variants]  # by image
    batches = _batches(counts)
    for batch in cli.progress(batches, total=len(batches), what=what, unit="batch"):
        tokens = torch.stack([features[image] for image in batch]).float()
        attention = torch.stack([saliency[image] for image in batch])
        similarity = cosine_similarity(tokens)
        names = [ids[image] for image in batch]
        budget = counts[batch[0]]
        read = {name: values[batch] for name, values in signals.items()}
        orders = rank_many(arguments.family, tokens, attention, budget, variants, names, read)
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
        files.write_arrays(path, arrays, facts, [arguments.features, *arguments.signals])


def _signals(strategy: ModuleType, paths: Sequence[Path], ids: list[str]) -> dict[str, Tensor]:
    """Read what a strategy reads beside features and saliency, by its own names.

    Raises:
        PrunecalError: a file is missing, or is of other images.
    """
    by_name = {path.stem: path for path in paths}
    signals = {}
    for name, signal in plugins.declared("strategies", strategy, "READS").items():
        if signal not in by_name:
            raise PrunecalError(f"rank: --signals lacks {signal}.safetensors, which is read")
        file = files.open_arrays(by_name[signal], framework="pt")
        if file.facts["image_id"] != ids:
            raise PrunecalError(
                f"{by_name[signal]} is of other images than the features; delete it and run "
                "snakemake again"
            )
        signals[name] = file.get_tensor("signal")
    return signals


def _rank_budgets(
    arguments: argparse.Namespace,
    strategy: ModuleType,
    variants: list[dict[str, Any]],
    features: PerImage,
    saliency: PerImage,
    signals: dict[str, Tensor],
    ids: list[str],
) -> None:
    """Write a file for each variant, with arrays for each budget; all images have N tokens."""
    import torch

    parts: list[dict[str, list[Tensor]]] = [{} for _ in variants]
    for batch in _batches(features.counts):
        tokens = torch.stack([features[image] for image in batch]).float()
        attention = torch.stack([saliency[image] for image in batch])
        read = {name: values[batch].float() for name, values in signals.items()}
        given = (variants, [ids[image] for image in batch], read)
        for budget in arguments.budgets:
            listed = _of_budget(arguments.family, strategy, budget, tokens, attention, *given)
            for variant, arrays in enumerate(listed):
                for name, values in arrays.items():
                    parts[variant].setdefault(f"{name}/{budget}", []).append(values)
    for variant, (parameters, path) in enumerate(zip(variants, arguments.out, strict=True)):
        facts = {
            "image_id": ids,
            "family": arguments.family,
            "parameters": parameters,
            "visual_tokens": features.counts[0],
        }
        arrays = {name: torch.cat(values) for name, values in parts[variant].items()}
        for name in [name for name in arrays if name.startswith("weights/")]:
            budget = name.partition("/")[2]
            weights = arrays.pop(name).coalesce()
            image, output, source = weights.indices()
            places = (image * int(budget) + output) * (features.counts[0] + 1) + source
            arrays |= {f"places/{budget}": places, f"weight/{budget}": weights.values()}
        numbers = {name: values.numpy() for name, values in arrays.items()}
        files.write_arrays(path, numbers, facts, [arguments.features, *arguments.signals])


def _of_budget(
    family: str,
    strategy: ModuleType,
    budget: int,
    features: Tensor,
    saliency: Tensor,
    variants: list[dict[str, Any]],
    ids: list[str],
    signals: dict[str, Tensor],
) -> list[dict[str, Tensor]]:
    """Return the arrays of each variant for some images at a budget; weights are sparse."""
    import torch

    given = (family, features, saliency, budget, variants, ids, signals)
    if not hasattr(strategy, "merge"):
        return [
            {"kept": order.to(torch.int16), "covered": coverage(features, order)}
            for order in rank_many(*given)
        ]
    cls = signals.get("cls", torch.zeros_like(features[:, :1]))
    sources = torch.cat((cls, features), dim=1)
    return [
        {"weights": one.to_sparse(), "covered": coverage_of_tokens(features, one @ sources)}
        for one in merge_many(*given)
    ]


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
    parser.add_argument("--signals", type=Path, nargs="*", default=[], help="what else it reads")
    parser.add_argument(
        "--budgets", type=int, nargs="*", default=[], help="of a strategy whose are not nested"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument(
        "--out", type=Path, nargs="+", required=True, help="a ranking.safetensors per variant"
    )
    cli.run(main, parser.parse_args())
