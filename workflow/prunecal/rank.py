"""Stage `rank`: the visual tokens that a strategy keeps of every image, or how it merges them.

Writes, for each variant of a strategy, `order` int16 [I, N] and `coverage` float32 [I, N]: the
evidence coverage of the first 1 ... N tokens of that order. Every budget is a prefix. Where images
have different numbers of tokens, both are flattened, and `tokens` and `layout` are those of the
features.

If budgets are not nested, there are instead for each budget K `kept/K` int16 [I, K], flattened as
above, and `covered/K` float32 [I]; of a strategy that merges, instead of `kept`, the weights of CLS
and the patches in each token: `places/K` int64, flat places in the arrays [K, N + 1] of all images,
ascending, and `weight/K` float32.

A strategy that ranks for each question has the same arrays per budget, with a row for each distinct
pair of an image and a text about it, image by image; `image_id` and `question` (a digest of the
text) in the metadata name the pair of each row.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecal.core import cli, plugins
from prunecal.core.errors import RERUN, PrunecalError
from prunecal.engine import device
from prunecal.engine.coverage import cosine_similarity, coverage_curve
from prunecal.storage import files
from prunecal.storage.checksums import text_digest
from prunecal.storage.per_image import TILES, PerImage, grids_of, starts_of_weights, together
from prunecal.strategies import Images, rank_many
from prunecal.strategies._per_budget import Sparse, of_budgets, ranking_arguments
from prunecal.strategies._signals import Signals
from prunecal.study.budgets import kept_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

    from numpy.typing import NDArray
    from torch import Tensor

BATCH = 32  # images at a time
ENTRIES = 2**25  # of the similarity matrices held at a time


@dataclass(frozen=True)
class EncodedImages:
    """The images of a data set as `encode` wrote them, and what a strategy reads of them."""

    ids: list[str]
    features: PerImage
    saliency: PerImage
    signals: Signals
    grids: list[tuple[tuple[int, int], ...]]
    tiles: PerImage | None

    def some(self, batch: list[int]) -> Images:
        """Return some images of equal numbers of tokens."""
        import torch

        return Images(
            torch.stack([self.features[image] for image in batch]).float(),
            torch.stack([self.saliency[image] for image in batch]),
            [self.ids[image] for image in batch],
            self.signals.of_images(batch),
            self.grids[batch[0]],
        )

    def asked(self, image: int, texts: list[str]) -> Images:
        """Return an image once for each text about it: its arrays are expanded, not copied."""
        one = self.some([image])

        def rows(values: Tensor) -> Tensor:
            return values.expand(len(texts), *values.shape[1:])

        signals = {name: rows(values) for name, values in one.signals.items()}
        signals |= self.signals.of_questions(texts, one.features)
        ids = [self.ids[image]] * len(texts)
        return Images(rows(one.features), rows(one.saliency), ids, signals, one.grids)


def main(arguments: argparse.Namespace) -> None:
    """Rank all images of a data set for all variants of a strategy."""
    import torch

    device.pick("cpu", arguments.threads)
    variants = json.loads(arguments.variants)
    strategy = plugins.load("strategies", arguments.family)
    what = f"rank {strategy.LABEL}"
    file = files.open_arrays(arguments.features, framework="pt")
    ids = file.facts["image_id"]
    encoded = EncodedImages(
        ids,
        PerImage(file, "features"),
        PerImage(file, "saliency"),
        Signals(strategy, variants, arguments.signals, ids),
        grids_of(file, len(ids)),
        PerImage(file, TILES) if TILES in file.keys() else None,  # noqa: SIM118  not a mapping
    )
    layout = {"layout": file.get_tensor("layout").numpy()} if "layout" in file.keys() else {}  # noqa: SIM118
    if arguments.budgets:
        _rank_budgets(arguments, strategy, variants, encoded, layout)
        return
    ranked: list[dict[int, tuple[Any, Any]]] = [{} for _ in variants]  # by image
    batches = _batches(encoded)
    for batch in cli.progress(batches, total=len(batches), what=what, unit="batch"):
        images = encoded.some(batch)
        similarity = cosine_similarity(images.features)
        if encoded.tiles is None:
            orders = rank_many(*ranking_arguments(arguments.family, images, None, variants))
        else:
            tiles = [encoded.tiles[image] for image in batch]
            orders = _in_turn(arguments.family, images, tiles, variants)
        for variant, order in enumerate(orders):
            coverage = coverage_curve(similarity, order).numpy()
            pairs = zip(order.to(torch.int16).numpy(), coverage, strict=True)
            ranked[variant] |= zip(batch, pairs, strict=True)
    for variant, (parameters, path) in enumerate(zip(variants, arguments.out, strict=True)):
        orders, coverages = zip(*(ranked[variant][at] for at in range(len(ids))), strict=True)
        flat = together(orders)
        arrays = {"order": flat.values, "coverage": together(coverages).values, **layout}
        if flat.tokens is not None:
            arrays["tokens"] = flat.tokens
        facts = {"image_id": ids, "family": arguments.family, "parameters": parameters}
        files.write_arrays(path, arrays, facts, [arguments.features, *arguments.signals])


def _in_turn(
    family: str, images: Images, tiles: Sequence[Tensor], variants: list[dict[str, Any]]
) -> list[Tensor]:
    """Return orders in which the tiles of an image, each ranked by itself, take turns.

    Each budget then keeps equally many tokens of every tile, as long as it has some left.

    Args:
        family: the strategy's name.
        images: whose tokens are ranked.
        tiles: of each image int32 [N], the tile of each token.
        variants: settings of the strategy.

    Returns:
        int64 [B, N] for each variant.
    """
    import torch

    orders: list[list[Tensor]] = [[] for _ in variants]
    for number, tile in enumerate(tiles):
        members = [(tile == one).nonzero().flatten() for one in tile.unique()]
        turns = torch.cat([torch.arange(len(own)) for own in members]).argsort(stable=True)
        ranked = [
            rank_many(
                family,
                images.features[number : number + 1, own],
                images.saliency[number : number + 1, own],
                len(own),
                variants,
                images.ids and [f"{images.ids[number]}, tile {at}"],
            )
            for at, own in enumerate(members)
        ]
        for variant, one in enumerate(orders):
            pairs = zip(members, ranked, strict=True)
            one.append(torch.cat([own[order[variant][0]] for own, order in pairs])[turns])
    return [torch.stack(one) for one in orders]


def _rank_budgets(
    arguments: argparse.Namespace,
    strategy: ModuleType,
    variants: list[dict[str, Any]],
    encoded: EncodedImages,
    layout: dict[str, Any],
) -> None:
    """Write a file for each variant, with arrays for each budget."""
    import numpy as np

    sources = [arguments.features, *arguments.signals]
    pairs = [(image, "") for image in range(len(encoded.ids))]
    if arguments.questions:
        pairs = _pairs(arguments.questions, encoded.ids)
        sources.append(arguments.questions)
    counts = [encoded.features.counts[image] for image, _ in pairs]
    parts: list[dict[str, list[Any]]] = [{} for _ in variants]  # by row
    budgets = [int(text) if text.isdigit() else text for text in arguments.budgets]
    batches = [*_questions(pairs)] if arguments.questions else _batches(encoded)
    what = f"rank {strategy.LABEL}"
    for rows in cli.progress(batches, total=len(batches), what=what, unit="batch"):
        if arguments.questions:
            images = encoded.asked(pairs[rows[0]][0], [pairs[row][1] for row in rows])
        else:
            images = encoded.some(rows)
        kept = {str(budget): kept_tokens(budget, counts[rows[0]]) for budget in budgets}
        listed = of_budgets(arguments.family, strategy, kept, images, variants)
        for variant, arrays in enumerate(listed):
            for name, values in arrays.items():
                of_rows = parts[variant].setdefault(name, [None] * len(pairs))
                for row, one in zip(rows, values, strict=True):
                    of_rows[row] = one
    equal = len(set(counts)) == 1
    for variant, (parameters, path) in enumerate(zip(variants, arguments.out, strict=True)):
        ids = [encoded.ids[image] for image, _ in pairs]
        facts = {"image_id": ids, "family": arguments.family, "parameters": parameters}
        if arguments.questions:
            facts["question"] = [text for _, text in pairs]
        numbers = dict(layout)
        if equal:
            facts["visual_tokens"] = counts[0]
        else:
            numbers["tokens"] = np.array(counts, np.int32)
        for name, of_rows in parts[variant].items():
            kind, _, budget = name.partition("/")
            if kind == "weights":
                numbers |= _sparse(budget, of_rows)
            else:
                joined = np.stack if equal or kind == "covered" else np.concatenate
                numbers[name] = joined(of_rows)
        files.write_arrays(path, numbers, facts, sources)


def _pairs(questions: Path, ids: list[str]) -> list[tuple[int, str]]:
    """Return the distinct pairs of an image and the digest of a text about it, image by image.

    Raises:
        PrunecalError: a question is about an image without features.
    """
    place = {image: at for at, image in enumerate(ids)}
    table = files.read_table(questions, ["image_id", "text"])
    columns = (column.to_pylist() for column in table.columns)
    pairs = dict.fromkeys(
        (place.get(image, image), text_digest(text)) for image, text in zip(*columns, strict=True)
    )
    lacking = [image for image, _ in pairs if isinstance(image, str)]
    if lacking:
        raise PrunecalError(
            f"{questions} asks about {lacking[0]!r}, which has no features; {RERUN}"
        )
    return sorted(pairs, key=lambda pair: pair[0])


def _questions(pairs: list[tuple[int, str]]) -> Iterator[list[int]]:
    """Yield the rows of each image."""
    for _, rows in groupby(range(len(pairs)), key=lambda row: pairs[row][0]):
        yield list(rows)


def _sparse(budget: str, weights: Sequence[Sparse]) -> dict[str, NDArray]:
    """Return weights [K, N + 1] of rows as they are stored."""
    import numpy as np

    shapes = [one.shape for one in weights]
    kept, tokens = zip(*((shape[0], shape[1] - 1) for shape in shapes), strict=True)
    starts = starts_of_weights(kept, tokens)[:-1]
    places = [one.places + start for one, start in zip(weights, starts, strict=True)]
    values = np.concatenate([one.values for one in weights])
    return {f"places/{budget}": np.concatenate(places), f"weight/{budget}": values}


def _batches(encoded: EncodedImages) -> list[list[int]]:
    """Group images of equal numbers of tokens and grids, as many at a time as memory takes."""
    alike: dict[Any, list[int]] = {}
    for image, count in enumerate(encoded.features.counts):
        alike.setdefault((count, encoded.grids[image]), []).append(image)
    batches = []
    for (count, _), images in alike.items():
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
        "--budgets",
        nargs="*",
        default=[],
        help="of a strategy that keeps other tokens at another budget",
    )
    parser.add_argument(
        "--questions", type=Path, help="questions.parquet, of a strategy that ranks for each"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument(
        "--out", type=Path, nargs="+", required=True, help="a ranking.safetensors per variant"
    )
    cli.run(main, parser.parse_args())
