"""Stage `rank`: the visual tokens that strategies keep of every image, or how they merge them.

A job covers the strategies of one model and data set, because a process start costs more than a
ranking; those that the store has already are not ranked again. Variants of one plugin share what
they can, such as similarities.

Writes, for each strategy, `order` int16 [I, N] and `coverage` float32 [I, N]: the
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
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecal.caching import lineage
from prunecal.caching.cell_store import RANKING_FILES, CellStore, cell_key
from prunecal.caching.fingerprint import code_record
from prunecal.core import cli, plugins
from prunecal.core.errors import PrunecalError, brief
from prunecal.engine import device
from prunecal.engine.coverage import cosine_similarity, coverage_curve
from prunecal.storage import files
from prunecal.storage.arrays import write_arrays
from prunecal.storage.per_image import starts_of_weights, together
from prunecal.strategies import rank_many
from prunecal.strategies._encoded import EncodedImages, of_each_image, pairs_asked
from prunecal.strategies._per_budget import Sparse, of_budgets, ranking_arguments
from prunecal.strategies._per_tile import in_turn
from prunecal.study.budgets import Budget, kept_tokens
from prunecal.study.strategy_settings import read_signals

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import ModuleType

    from numpy.typing import NDArray

    from prunecal.strategies import Images

BATCH = 32  # images at a time
ENTRIES = 2**25  # of the similarity matrices held at a time


@dataclass(frozen=True)
class Strategy:
    """A strategy to rank by.

    Attributes:
        inputs: the job's arguments.
        strategy: its label in paths.
        family: its plugin's name.
        parameters: its own.
        budgets: those to rank for; none if one order serves all.
    """

    inputs: argparse.Namespace
    strategy: str
    family: str
    parameters: dict[str, Any]
    budgets: list[Budget]

    @cached_property
    def code(self) -> str:
        """Record of the code that ranks by it: of what this job runs, whatever was planned."""
        return code_record("prunecal.rank", plugins.module_name("strategies", self.family))

    @cached_property
    def sources(self) -> list[Path]:
        """The files that it reads."""
        read = read_signals(self.family, self.parameters)
        signals = [path for path in self.inputs.signals if path.stem in read]
        module = plugins.load("strategies", self.family)
        asks = plugins.declared("strategies", module, "PER") == "question"
        return [self.inputs.features, *signals, *([self.inputs.questions] if asks else [])]

    def key(self) -> str:
        """Return the key of its ranking: a digest of everything that determines it."""
        return cell_key(
            {
                "family": self.family,
                "parameters": self.parameters,
                "budgets": self.budgets,
                lineage.CODE: self.code,
                lineage.MADE_FROM: {path.name: files.digest_of(path) for path in self.sources},
            }
        )


def main(arguments: argparse.Namespace) -> None:
    """Rank or fetch the strategies of a job."""
    strategies = [Strategy(arguments, **one) for one in json.loads(arguments.strategies)]
    store = CellStore(arguments.store, RANKING_FILES)
    keys = [strategy.key() for strategy in strategies]
    missing: dict[str, list[tuple[Strategy, Path]]] = {}  # by plugin
    for strategy, key in zip(strategies, keys, strict=True):
        if not store.has(key):
            out = store.folder(key) / RANKING_FILES[0]
            missing.setdefault(strategy.family, []).append((strategy, out))
    if missing:
        device.pick("cpu", arguments.threads)
    for family, listed in missing.items():
        variants, out = [one.parameters for one, _ in listed], [path for _, path in listed]
        rank_plugin(arguments, family, variants, listed[0][0].budgets, out)
        for path in out:
            store.record(path.parent.name)
    for strategy, key in zip(strategies, keys, strict=True):
        destination = arguments.folder / strategy.strategy
        store.hand_out(key, destination, RANKING_FILES[:1], strategy.sources, strategy.code)


def rank_plugin(
    inputs: argparse.Namespace,
    family: str,
    variants: list[dict[str, Any]],
    budgets: Sequence[Budget],
    out: Sequence[Path],
) -> None:
    """Rank all images of a data set for variants of one plugin, and write a file for each.

    Args:
        inputs: paths of `features`, `signals` (a list) and `questions` (None if it reads none).
        family: the plugin's name.
        variants: its parameters.
        budgets: those to rank for; none if one order serves all.
        out: a ranking.safetensors for each variant.

    Raises:
        PrunecalError: a signal is missing, inputs do not fit together, or the strategy does not
            rank as it has to.
    """
    import torch

    strategy = plugins.load("strategies", family)
    encoded = EncodedImages.read(inputs.features, inputs.signals, strategy, variants)
    if budgets:
        asks = plugins.declared("strategies", strategy, "PER") == "question"
        questions = inputs.questions if asks else None
        _rank_budgets(questions, family, variants, budgets, encoded, out)
        return
    ranked: list[dict[int, tuple[Any, Any]]] = [{} for _ in variants]  # by image
    for batch in _progress(strategy, _batches(encoded)):
        images = encoded.some(batch)
        similarity = cosine_similarity(images.features)
        if encoded.tiles is None:
            orders = rank_many(*ranking_arguments(family, images, None, variants))
            if 0 in batch:
                _refuse_other_alone(family, strategy, encoded.some(batch[:1]), variants, orders)
        else:
            tiles = [encoded.tiles[image] for image in batch]
            orders = in_turn(family, images, tiles, variants)
        for variant, order in enumerate(orders):
            coverage = coverage_curve(similarity, order).numpy()
            pairs = zip(order.to(torch.int16).numpy(), coverage, strict=True)
            ranked[variant] |= zip(batch, pairs, strict=True)
    for variant, (parameters, path) in enumerate(zip(variants, out, strict=True)):
        orders, coverages = zip(
            *(ranked[variant][at] for at in range(len(encoded.ids))), strict=True
        )
        flat = together(orders)
        arrays = {"order": flat.values, "coverage": together(coverages).values, **encoded.layout}
        if flat.tokens is not None:
            arrays["tokens"] = flat.tokens
        write_arrays(
            path, arrays, {"image_id": encoded.ids, "family": family, "parameters": parameters}
        )


def _refuse_other_alone(
    family: str, strategy: ModuleType, image: Images, variants: list[dict[str, Any]], orders: Any
) -> None:
    """Refuse a strategy that ranks the first image of a batch otherwise alone and for less.

    Raises:
        PrunecalError: what it keeps at half of the tokens is no prefix of its ranking.
    """
    half = (image.features.shape[1] + 1) // 2
    again = rank_many(*ranking_arguments(family, image, half, variants))
    for order, alone in zip(orders, again, strict=True):
        if not order[:1, :half].equal(alone):
            raise PrunecalError(
                f"the strategy {family!r} ({strategy.__file__}) ranks the image "
                f"{brief(image.ids[0])} alone, for half of the tokens, in another order than in a "
                "batch, for all of them; have it return a prefix for fewer tokens (or set NESTED = "
                "False), the same every time and whatever other images there are, and compute "
                "image by image if round-off differs: see which fails by "
                f"`pytest -q tests/unit/test_strategies.py -k {family}`"
            )


def _progress(strategy: ModuleType, batches: list[list[int]]) -> Iterable[list[int]]:
    return cli.progress(batches, total=len(batches), what=f"rank {strategy.LABEL}", unit="batch")


def _rank_budgets(
    questions: Path | None,
    family: str,
    variants: list[dict[str, Any]],
    budgets: Sequence[Budget],
    encoded: EncodedImages,
    out: Sequence[Path],
) -> None:
    """Write a file for each variant, with arrays for each budget; of each question if given."""
    import numpy as np

    strategy = plugins.load("strategies", family)
    pairs = [(image, "") for image in range(len(encoded.ids))]
    if questions:
        pairs = pairs_asked(questions, encoded.ids)
    counts = [encoded.features.counts[image] for image, _ in pairs]
    parts: list[dict[str, list[Any]]] = [{} for _ in variants]  # by row
    batches = [*of_each_image(pairs)] if questions else _batches(encoded)
    for rows in _progress(strategy, batches):
        if questions:
            images = encoded.asked(pairs[rows[0]][0], [pairs[row][1] for row in rows])
        else:
            images = encoded.some(rows)
        kept = {str(budget): kept_tokens(budget, counts[rows[0]]) for budget in budgets}
        listed = of_budgets(family, strategy, kept, images, variants)
        for variant, arrays in enumerate(listed):
            for name, values in arrays.items():
                of_rows = parts[variant].setdefault(name, [None] * len(pairs))
                for row, one in zip(rows, values, strict=True):
                    of_rows[row] = one
    equal = len(set(counts)) == 1
    for variant, (parameters, path) in enumerate(zip(variants, out, strict=True)):
        ids = [encoded.ids[image] for image, _ in pairs]
        facts = {"image_id": ids, "family": family, "parameters": parameters}
        if questions:
            facts["question"] = [text for _, text in pairs]
        numbers = dict(encoded.layout)
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
        write_arrays(path, numbers, facts)


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
    parser.add_argument("--strategies", required=True, help="JSON: list of strategies")
    parser.add_argument("--features", type=Path, required=True, help="features.safetensors")
    parser.add_argument("--signals", type=Path, nargs="*", default=[], help="what else they read")
    parser.add_argument("--questions", type=Path, help="questions.parquet, if one ranks for each")
    parser.add_argument("--folder", type=Path, required=True, help="results/{model}/{dataset}")
    parser.add_argument("--store", type=Path, required=True, help="folder of finished rankings")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    cli.run(main, parser.parse_args())
