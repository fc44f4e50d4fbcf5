"""Compare the speed of the engine with one question at a time and with plain batches.

    python -m prunecal.benchmark --out benchmarks/NAME.json   the 7B shape on a GPU, a mid-size one
                                                              on a CPU

All methods run in one process, alternating in every round; medians are reported with the machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecal.core import cli, plugins
from prunecal.engine import device as devices
from prunecal.storage import files
from prunecal.storage.arrays import write_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    import torch

    from prunecal.models.llava import Llava


def main(arguments: argparse.Namespace) -> None:
    """Measure every shape, workload and budget; write one JSON file."""
    import torch

    where = devices.pick(arguments.device, arguments.threads)
    dtype = getattr(torch, arguments.dtype or ("bfloat16" if where.type == "cuda" else "float32"))
    rows = []
    with torch.inference_mode():
        for name in arguments.shapes or _shapes(arguments.weights, where):
            llava = _model(name, arguments.weights, dtype, where)
            for load in arguments.loads:
                for budget in _budgets(llava):
                    cli.log.info("measuring %s, %s, %d visual tokens", name, load, budget)
                    questions = _questions(name, load, arguments.images)
                    measured = _measure(llava, questions, budget, arguments)
                    rows.append({"model": name, "load": load, **measured})
                    cli.log.info("%s", json.dumps(rows[-1]))
            del llava
    about = files.provenance(
        command=" ".join(["python -m prunecal.benchmark", *sys.argv[1:]]),
        device=devices.name(where),
        threads=arguments.threads,
        dtype=str(dtype).removeprefix("torch."),
        rounds=arguments.rounds,
    )
    files.write_json(arguments.out, {"about": about, "rows": rows})


def _shapes(weights: Path | None, where: torch.device) -> list[str]:
    return ["embedded"] * bool(weights) + ["7b" if where.type == "cuda" else "mid"]


def _model(name: str, weights: Path | None, dtype: torch.dtype, where: torch.device) -> Llava:
    from prunecal.benchmark.workloads import SHAPES, random_model

    if name in SHAPES:
        return random_model(name, dtype, where)
    settings = {
        "visual_tokens": 100,
        "template": "vicuna_v1",
        "image": "pad",
        "dtype": str(dtype).removeprefix("torch."),
    }
    return plugins.load("models", "llava").load(weights, settings, where)


def _budgets(llava: Llava) -> tuple[int, int]:
    visual = llava.settings["visual_tokens"]
    return visual, max(1, visual // 9)


def _questions(name: str, load: str, images: int) -> pd.DataFrame:
    """Return a workload of `images` images, four times as many if it is ScienceQA-like."""
    from prunecal.benchmark.workloads import EMBEDDED_LOADS, LOADS

    known = EMBEDDED_LOADS if name == "embedded" else LOADS
    return known[load](images * (4 if load == "ScienceQA-like" else 1))


def _measure(
    llava: Llava, questions: pd.DataFrame, budget: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Time all methods on one workload, round by round, and compare their logits."""
    import numpy as np
    import torch

    from prunecal.benchmark import baselines
    from prunecal.engine.session import Session

    images = questions["image_id"].nunique()
    side = llava.model.config.vision_config.image_size
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(images, 3, side, side, generator=generator)
    pixels = pixels.to(llava.device, llava.model.dtype)
    plain = baselines.Plain(llava, pixels, questions, budget)
    features, saliency = baselines.encode(llava, pixels)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.safetensors"
        ids = [f"image{at}" for at in range(images)]
        write_tensors(path, {"features": features}, {"image_id": ids})
        session = Session(llava, questions, path, arguments.batch_tokens)
        order = saliency.argsort(dim=1, descending=True, stable=True)[:, :budget]
        strategy = plugins.load("strategies", "saliency")
        cell = (strategy, strategy.Params(), budget, order.short().numpy())
        covered = np.zeros(images, np.float32)
        rng, seconds, compared = np.random.default_rng(0), defaultdict(list), {}
        session.run(*cell, covered)  # warm-up
        plain.one_at_a_time(0)
        plain.batch(range(2))
        for _ in range(arguments.rounds):
            seconds["matmul"].append(matmul(llava))
            for row in rng.choice(len(questions), arguments.single, replace=False).tolist():
                took, compared[row] = timed(llava, lambda row=row: plain.one_at_a_time(row))
                seconds["one_at_a_time"].append(took)
            batch = rng.choice(len(questions), 8, replace=False).tolist()
            took, _ = timed(llava, lambda batch=batch: plain.batch(batch))
            seconds["plain_batch"].append(took / len(batch))
            took, answers = timed(llava, lambda: session.run(*cell, covered))
            seconds["engine"].append(took / len(questions))
            took, _ = timed(llava, lambda: baselines.encode(llava, pixels))
            seconds["encode"].append(took / len(questions))
    return _summary(llava, session, budget, seconds, compared, answers)


def _summary(
    llava: Llava,
    session: Any,
    budget: int,
    seconds: dict[str, list[float]],
    compared: dict[int, torch.Tensor],
    answers: Any,
) -> dict[str, Any]:
    import numpy as np
    import torch

    from prunecal.benchmark.baselines import decoder_shape, needed_flops
    from prunecal.engine.planner import plan

    median = {way: statistics.median(values) for way, values in seconds.items()}
    whole = median["engine"] + median["encode"]
    shape = decoder_shape(llava)
    asked, count = session.questions, len(session.questions.row_to_distinct)
    planned = plan(asked.images.tolist(), asked.texts, budget, session.runner.batch_tokens)
    rows = [row for batch in planned for row in batch]
    prompts = [
        (
            len(asked.system),
            budget + row.shared,
            [row.blocks.count(b + 1) for b in range(len(row.questions))],
        )
        for row in rows
    ]
    padded = sum(len(b) * (budget + max(len(row.tokens) for row in b)) for b in planned)
    tokens = sum(budget + len(row.tokens) for row in rows)
    achieved = needed_flops(shape, prompts) / (median["engine"] * count)
    gaps = [np.abs(logits.numpy() - answers.logits[row]).max() for row, logits in compared.items()]
    same = [
        int(logits.argmax()) == int(answers.logits[row].argmax())
        for row, logits in compared.items()
    ]
    cuda = llava.device.type == "cuda"
    peak = (
        torch.cuda.max_memory_allocated()
        if cuda
        else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )
    return {
        "budget": budget,
        "rows": count,
        "distinct": len(asked),
        **{
            f"{way}_s_per_question": median[way]
            for way in ("one_at_a_time", "plain_batch", "engine", "encode")
        },
        "ratio_features_cached": median["one_at_a_time"] / median["engine"],
        "ratio_encoding_included": median["one_at_a_time"] / whole,
        "ratio_over_plain_batch": median["plain_batch"] / whole,
        "tokens_per_s": tokens / (median["engine"] * count),
        "padding": 1 - tokens / padded,
        "tflops": achieved / 1e12,
        "matmul_tflops": median["matmul"] / 1e12,
        "share_of_matmul": achieved / median["matmul"],
        "peak_memory_mb": round(peak / 2**20),
        "max_logit_difference": float(max(gaps)),
        "same_predictions": sum(same) / len(same),
        "compared": len(same),
    }


def timed(
    llava: Llava, function: Callable[[], Any], clock: Callable[[], float] = time.perf_counter
) -> tuple[float, Any]:
    """Return the seconds that a call takes, until the device has done all, and its result."""
    _wait(llava)
    start = clock()
    result = function()
    _wait(llava)
    return clock() - start, result


def _wait(llava: Llava) -> None:
    if llava.device.type == "cuda":
        import torch

        torch.cuda.synchronize()


def matmul(llava: Llava, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the FLOP/s of a large square matrix product in the model's dtype."""
    import torch

    size = 8192 if llava.device.type == "cuda" else 2048
    left, right = (
        torch.randn(size, size, device=llava.device).to(llava.model.dtype) for _ in range(2)
    )
    torch.mm(left, right)
    took = [timed(llava, lambda: torch.mm(left, right), clock)[0] for _ in range(5)]
    return 2 * size**3 / statistics.median(took)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line, or `words`."""
    parser = cli.parser(__doc__.splitlines()[0])
    parser.add_argument(
        "--shapes",
        nargs="+",
        choices=["embedded", "mid", "7b"],
        help="by default mid on a CPU and 7b on a GPU, and embedded where weights are given",
    )
    parser.add_argument("--loads", nargs="+", default=["POPE-like", "ScienceQA-like"])
    parser.add_argument("--weights", type=Path, help="folder of the embedded model")
    parser.add_argument(
        "--images", type=int, default=4, help="images; ScienceQA-like has four times as many"
    )
    parser.add_argument(
        "--single", type=int, default=4, help="questions asked one at a time per round"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", help="bfloat16 on a GPU and float32 on a CPU by default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    return parser.parse_args(words)


if __name__ == "__main__":
    cli.run(main, arguments())
