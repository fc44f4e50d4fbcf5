"""Compare the speed of pruning methods in the engine with the same methods, one question at a time.

    python -m prunecal.benchmark.methods --out benchmarks/methods.json

POPE-like questions about random images, models with random weights. One at a time is what
evaluation harnesses do for each question: encode its image, prune its tokens, run one prompt. The
engine has the features; it ranks or merges the tokens of each image once, and answers all
questions. Both alternate in every round; medians are written.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import zlib
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecal.core import cli, plugins
from prunecal.engine import device as devices
from prunecal.storage import files
from prunecal.storage.checksums import text_digest
from prunecal.study.strategy_settings import reads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from prunecal.engine.interfaces import Encoded, Stage

LOADS = {"mid": 64, "qwen": 43}  # visual tokens kept, 11 %
EMBEDDED = 768  # width of the space that CLIP's towers share


@dataclass
class Method:
    """A pruning method on a model.

    Attributes:
        model: a model with random weights.
        name: the strategy's.
        budget: visual tokens that it keeps.
    """

    model: Any
    name: str
    budget: int

    @cached_property
    def module(self) -> Any:
        """The strategy."""
        return plugins.load("strategies", self.name)

    @property
    def inside(self) -> bool:
        """Whether it prunes inside the decoder."""
        return self.module.PRUNES == "inside_llm"

    @cached_property
    def reads(self) -> dict[str, Any]:
        """Which signals it reads, by its own names."""
        return {} if self.inside else reads(self.module, self.params)

    @property
    def asks(self) -> bool:
        """Whether each question has tokens of its own before the decoder."""
        return not self.inside and plugins.declared("strategies", self.module, "PER") == "question"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Its parameters, where the model takes others than the default."""
        ragged = hasattr(self.model, "block") and "positions" in self.module.Params.model_fields
        return {"positions": "original"} if ragged else {}

    @cached_property
    def params(self) -> Any:
        """The same, checked."""
        return self.module.Params(**self.settings)

    @cached_property
    def stages(self) -> list[Stage]:
        """Where it drops tokens inside the decoder; none if it does so before."""
        if not self.inside:
            return []
        visual = self.model.settings["visual_tokens"]
        return self.module.stages(visual, self.budget, len(self.model.decoder.layers), self.params)

    def select(
        self,
        images: Sequence[tuple[Encoded, dict[str, Tensor]]],
        names: Sequence[str],
        texts: Sequence[str],
    ) -> Tensor:
        """Return the kept tokens of images, int64 [I, K], or weights [I, K, N + 1] that merge.

        Args:
            images: features and signals of each.
            names: of the images.
            texts: a question about each, of which embeddings are made up.
        """
        import torch

        from prunecal.strategies import merge_many, rank_many

        features = torch.stack([encoded.features for encoded, _ in images]).cpu()
        saliency = torch.stack([encoded.saliency for encoded, _ in images]).cpu()
        pairs = [
            own | _made_up(text, len(encoded.features))
            for (encoded, own), text in zip(images, texts, strict=True)
        ]
        signals = {
            name: torch.cat([own[signal] for own in pairs]).cpu()
            for name, signal in self.reads.items()
        }
        many = merge_many if hasattr(self.module, "merge") else rank_many
        given = (features, saliency, self.budget, [self.settings], names, signals)
        return many(self.name, *given)[0]

    def one_at_a_time(self, picture: Any, name: str, text: str, options: Sequence[str]) -> Tensor:
        """Return the option logits of one question about an image that is encoded for it."""
        import torch

        model = self.model
        image = model.seen(picture, list(self.reads.values()))
        encoded, kept = image[0], None
        tokens = encoded.features
        if self.inside:
            return self._in_decoder(encoded, text, options)
        if hasattr(self.module, "merge"):
            (weights,) = self.select([image], [name], [text])
            cls = image[1].get("cls", torch.zeros_like(tokens[None, :1]))[0]
            tokens = weights.to(tokens) @ torch.cat((cls, tokens))
        else:
            kept = self.select([image], [name], [text])[0].sort().values
            tokens = tokens[kept]
        before, (after,) = model.tokenize([text])
        embed = model.decoder.embed
        parts = (embed(self._ids(before)), model.project(tokens), embed(self._ids(after)))
        states = torch.cat(parts)[None]
        positions = torch.arange(states.shape[1], device=model.device)[None]
        if kept is not None and hasattr(model, "block"):
            block = model.block(encoded.layout, len(encoded.features))
            visual = block.positions[:, kept].to(model.device) + len(before)
            shared = torch.arange(len(before), device=model.device).expand(3, -1)
            rest = positions[:, : len(after)].expand(3, -1) + len(before) + block.end
            positions = torch.cat((shared, visual, rest), dim=1)[:, None]
        output = model.model(
            inputs_embeds=states, position_ids=positions, logits_to_keep=1, use_cache=False
        )
        return output.logits[0, -1, model.option_tokens(text, options)].float().cpu()

    def _in_decoder(self, encoded: Encoded, text: str, options: Sequence[str]) -> Tensor:
        """Run one prompt through the loop over the method's stages, as the official codes do."""
        from prunecal.engine import stages
        from prunecal.engine.batch import single
        from prunecal.engine.unpruned import Unpruned

        model = self.model
        before, (after,) = model.tokenize([text])
        prompt = model.project(encoded.features), model.decoder.embed(self._ids(after))
        past = model.decoder.prefill(model.decoder.embed(self._ids(before)))
        batch = single(*prompt, len(before))
        unpruned = Unpruned(model.decoder, past, batch, encoded.features[None])
        pruned = stages.run(unpruned, self.stages, self.module, self.params)
        tokens = self._ids(model.option_tokens(text, options))
        return model.decoder.logits(pruned.states, tokens)[0].cpu()

    def _ids(self, tokens: Sequence[int]) -> Tensor:
        import torch

        return torch.tensor(tokens, device=self.model.device)


def main(arguments: argparse.Namespace) -> None:
    """Measure every method on every model that it runs on; write one JSON file."""
    import torch

    from prunecal.benchmark.workloads import random_model

    where = devices.pick(arguments.device, arguments.threads)
    dtype = getattr(torch, arguments.dtype)
    rows = []
    with torch.inference_mode():
        for shape in arguments.shapes:
            model = random_model(shape, dtype, where)
            for name in arguments.methods or _methods(model):
                budget = model.settings["visual_tokens"] if name == "full" else LOADS[shape]
                rows.append({"model": shape, **_measure(Method(model, name, budget), arguments)})
                cli.log.info("%s", rows[-1])
    about = files.provenance(
        command=" ".join(["python -m prunecal.benchmark.methods", *sys.argv[1:]]),
        device=devices.name(where),
        threads=arguments.threads,
        dtype=arguments.dtype,
        rounds=arguments.rounds,
        images=arguments.images,
    )
    files.write_json(arguments.out, {"about": about, "rows": rows})


def _methods(model: Any) -> list[str]:
    """List all methods that prune; two for a model that gives no signals of its tower."""
    if not hasattr(model, "signals_of_pixels"):
        return ["full", "saliency"]
    kinds = ("before_llm", "inside_llm")
    names = plugins.names("strategies")
    return [name for name in names if plugins.load("strategies", name).PRUNES in kinds]


def _made_up(text: str, tokens: int) -> dict[str, Tensor]:
    """Return embeddings of a text and of patches, as CLIP's text tower would give them."""
    import torch

    generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
    embeds = torch.randn(1, EMBEDDED, generator=generator)
    patches = torch.randn(1, tokens, EMBEDDED, generator=generator)
    return {"text_embeds": embeds, "text_segments": embeds[None], "image_embeds": patches}


def _measure(method: Method, arguments: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    from prunecal.benchmark.__main__ import matmul, timed
    from prunecal.benchmark.workloads import pope_like
    from prunecal.engine.session import Session
    from prunecal.engine.unpruned import Memory

    clock = time.process_time if arguments.processor_time else time.perf_counter
    model, questions = method.model, pope_like(arguments.images)
    pictures = model.pictures(arguments.images)
    images = [model.seen(picture, list(method.reads.values())) for picture in pictures]
    rows = list(zip(questions["image_id"], questions["text"], questions["options"], strict=True))

    def single(row: int) -> Tensor:
        return method.one_at_a_time(pictures[int(rows[row][0].removeprefix("image"))], *rows[row])

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.safetensors"
        _write(path, [encoded for encoded, _ in images])
        session = Session(model, questions, path, arguments.batch_tokens)

        def engine() -> Any:
            session._unpruned = Memory()  # as in a job's first cell
            cell = (method.module, method.params, method.budget)
            if method.inside:
                return session.run(*cell, None, None)
            listed, pairs = images, None
            if method.asks:
                asked = zip(session.images.tolist(), session.asked, strict=True)
                texts = {(image, text): None for image, (text, _) in asked}
                listed = [images[image] for image, _ in texts]
                pairs = [(f"image{image}", text_digest(text)) for image, text in texts]
                names = [name for name, _ in pairs]
                kept = _kept(method, listed, names, [text for _, text in texts])
            else:
                names = [f"image{at}" for at in range(len(images))]
                kept = _kept(method, images, names, names)
            return session.run(*cell, kept, np.zeros(len(listed), np.float32), pairs=pairs)

        rng, seconds, compared = np.random.default_rng(0), defaultdict(list), {}
        engine()  # warm-up
        single(0)
        for _ in range(arguments.rounds):
            seconds["matmul"].append(matmul(model, clock))
            for row in rng.choice(len(rows), arguments.single, replace=False).tolist():
                took, compared[row] = timed(model, lambda row=row: single(row), clock)
                seconds["one_at_a_time"].append(took)
            took, answers = timed(model, engine, clock)
            seconds["engine"].append(took)
    median = {way: statistics.median(values) for way, values in seconds.items()}
    achieved = _flops(method, session) / median["engine"]
    gaps = [np.abs(logits.numpy() - answers.logits[row]).max() for row, logits in compared.items()]
    per_question = median["engine"] / len(rows)
    return {
        "method": method.name,
        "budget": method.budget,
        "rows": len(rows),
        "distinct": len(session.texts),
        "one_at_a_time_s_per_question": median["one_at_a_time"],
        "engine_s_per_question": per_question,
        "ratio_features_cached": median["one_at_a_time"] / per_question,
        "tflops": achieved / 1e12,
        "matmul_tflops": median["matmul"] / 1e12,
        "share_of_matmul": achieved / median["matmul"],
        "max_logit_difference": float(max(gaps)),
    }


def _write(path: Path, images: Sequence[Encoded]) -> None:
    """Write the features of images as `encode` does."""
    import torch

    from prunecal.storage.spooled import Spool

    layouts = torch.tensor([encoded.layout for encoded in images], dtype=torch.int32)
    with Spool(path) as spool:
        for encoded in images:
            spool.add("features", encoded.features)
        facts = {"image_id": [f"image{at}" for at in range(len(images))]}
        spool.write(facts, [], {"layout": layouts} if layouts.numel() else {})


def _kept(
    method: Method,
    images: Sequence[tuple[Encoded, dict[str, Tensor]]],
    names: Sequence[str],
    texts: Sequence[str],
) -> Any:
    """Return what `Session.run` takes of a method that prunes before the decoder."""
    import torch

    from prunecal.engine.merged import Merged

    selected = method.select(images, names, texts)
    if not hasattr(method.module, "merge"):
        return selected.short().numpy()
    sparse = selected.flatten().to_sparse().coalesce()
    cls = [own["cls"].cpu() for _, own in images if "cls" in own]
    places, weight = sparse.indices()[0].numpy(), sparse.values().numpy()
    starts = [at * selected[0].numel() for at in range(len(images) + 1)]
    return Merged(places, weight, starts, torch.cat(cls) if cls else None)


def _flops(method: Method, session: Any) -> float:
    """Return the FLOPs that the engine needs for all questions, see `needed_flops`."""
    from prunecal.benchmark.baselines import decoder_shape, needed_flops
    from prunecal.engine.planner import plan

    model, system = method.model, len(session.system)
    shape, depth = decoder_shape(model), len(model.decoder.layers)
    visual = model.settings["visual_tokens"] if method.inside else method.budget
    of_row = list(range(len(session.texts))) if method.asks else session.images.tolist()
    planned = plan(of_row, session.texts, visual, session.batch_tokens)
    packed = [
        (
            system,
            visual + row.shared,
            [row.blocks.count(b + 1) for b in range(len(row.questions))],
        )
        for batch in planned
        for row in batch
    ]
    if not method.stages:
        return needed_flops(shape, packed)
    # each question has a row of its own from the first cut on
    total = needed_flops(
        shape, packed, max(method.stages[0].look, method.stages[0].cut), ends=False
    )
    ends = [*(stage.cut for stage in method.stages[1:]), depth]
    for stage, end in zip(method.stages, ends, strict=True):
        alone = [(system, stage.entering + len(text) - 1, [1]) for text in session.texts]
        total += needed_flops(shape, alone, end - stage.cut, ends=end == depth)
    return total


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line, or `words`."""
    parser = cli.parser(__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=list(LOADS), default=list(LOADS))
    parser.add_argument("--methods", nargs="+", help="strategies, by default all")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--single", type=int, default=2, help="one at a time per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--processor-time", action="store_true", help="not by the clock: the machine is busy"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    return parser.parse_args(words)


if __name__ == "__main__":
    cli.run(main, arguments())
