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
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecal.benchmark.method import Method
from prunecal.core import cli, plugins
from prunecal.engine import device as devices
from prunecal.storage import files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from prunecal.engine.interfaces import Encoded
    from prunecal.engine.session import Session

LOADS = {"mid": 64, "qwen": 43}  # visual tokens kept, 11 %


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


def _measure(method: Method, arguments: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    from prunecal.benchmark.__main__ import matmul, timed
    from prunecal.benchmark.workloads import pope_like
    from prunecal.engine.session import Session

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
            session.forget()  # as in a job's first cell
            cell = (method.module, method.params, method.budget)
            if method.inside:
                return session.run(*cell, None, None)
            asked = zip(session.questions.images, session.questions.asked, strict=True)
            kept, pairs = method.ranking(images, [(int(at), text) for at, (text, _) in asked])
            count = len(images if pairs is None else pairs)
            return session.run(*cell, kept, np.zeros(count, np.float32), pairs=pairs)

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
        "distinct": len(session.questions),
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


def _flops(method: Method, session: Session) -> float:
    """Return the FLOPs that the engine needs for all questions, see `needed_flops`."""
    from prunecal.benchmark.baselines import decoder_shape, needed_flops
    from prunecal.engine.planner import plan

    model, asked = method.model, session.questions
    system = len(asked.system)
    shape, depth = decoder_shape(model), len(model.decoder.layers)
    visual = model.settings["visual_tokens"] if method.inside else method.budget
    of_row = list(range(len(asked))) if method.asks else asked.images.tolist()
    planned = plan(of_row, asked.texts, visual, session.runner.batch_tokens)
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
        alone = [(system, stage.entering + len(text) - 1, [1]) for text in asked.texts]
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
