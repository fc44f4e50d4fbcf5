"""Time the score stage on a synthetic study of POPE's size.

500 images, three subsets of 3,000 questions that share their yes-questions, 60 cells of random
logits by default. Appends to a JSON list, so that slow runs are kept too: wall and processor time
of the whole stage in its own process, the sum of the peak memories of its processes (an upper
bound: shared pages count in each), and the machine.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from prunecal.core import cli
from prunecal.core.errors import PrunecalError
from prunecal.storage import files

IMAGES, PER_IMAGE = 500, 6
SUBSETS = ("random", "popular", "adversarial")


def write_study(folder: Path, cells: int, images: int = IMAGES) -> list[Path]:
    """Write questions.parquet and the predictions of cells; return the paths of the latter."""
    keys = [(s, i, q) for s in SUBSETS for i in range(images) for q in range(PER_IMAGE)]
    texts = [f"{i} {q}" if q < PER_IMAGE // 2 else f"{s} {i} {q}" for s, i, q in keys]
    rows = {
        "question_id": [f"{s}-{i}-{q}" for s, i, q in keys],
        "image_id": [f"image{i}" for _, i, _ in keys],
        "subset": [s for s, _, _ in keys],
    }
    questions = pa.table({"question_id": rows["question_id"], "text": texts})
    files.write_table(folder / "questions.parquet", questions, {})
    _, same = np.unique(texts, return_inverse=True)
    label = np.array([0 if q < PER_IMAGE // 2 else 1 for _, _, q in keys])
    paths = []
    for number in range(cells):
        generator = np.random.default_rng(number)
        margin = generator.normal(1.5, 1.5, same.max() + 1)[same]
        logits = np.where(label == 0, 1, -1)[:, None] * np.stack([margin, -margin], axis=1) / 2
        table = pa.table(
            {
                **rows,
                "options": [["Yes", "No"]] * len(keys),
                "label": pa.array(label, pa.int8()),
                "logits": pa.array(logits.tolist(), pa.list_(pa.float32())),
                "n_visual": pa.array(np.full(len(keys), 64), pa.int32()),
                "coverage": pa.array(generator.uniform(size=len(keys)), pa.float32()),
            }
        )
        strategy = "random" if number else "full"
        cell = {"model": "synthetic", "dataset": "pope-like", "strategy": strategy}
        cell |= {"family": strategy, "parameters": {}, "budget": number or 576}
        paths.append(folder / str(number) / "predictions.parquet")
        facts = {"cell": cell, "visual_tokens": 576, "tokens_per_layer": 64.0}
        files.write_table(paths[-1], table, facts)
    return paths


def measure(cells: int, resamples: int, threads: int, images: int = IMAGES) -> dict[str, object]:
    """Return seconds and peak memory of one run of the score stage.

    Raises:
        PrunecalError: the stage fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_study(folder, cells, images)
        command = [sys.executable, "-m", "prunecal.score", "--predictions", *map(str, paths)]
        command += ["--questions", str(folder / "questions.parquet"), "--threads", str(threads)]
        command += ["--resamples", str(resamples), "--output", str(folder / "score.safetensors")]
        start, used = time.perf_counter(), _processor_seconds()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        peaks: dict[int, int] = {}
        while process.poll() is None:
            peaks |= _peaks(process.pid)
            time.sleep(0.1)
        seconds, used = time.perf_counter() - start, _processor_seconds() - used
    if process.returncode:
        raise PrunecalError(
            f"prunecal.score exited with status {process.returncode}; run the stage by hand"
        )
    return {
        "seconds": round(seconds, 1),
        "processor_seconds": round(used, 1),
        "peak_mb": round(sum(peaks.values()) / 1000),
    }


def _processor_seconds() -> float:
    """Return the processor time of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _peaks(pid: int) -> dict[int, int]:
    """Return the peak resident memory of a process and its descendants, kB by process id."""
    peaks = {}
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return peaks
    for line in status.splitlines():
        if line.startswith("VmHWM"):
            peaks[pid] = int(line.split()[1])
    for child in children:
        peaks |= _peaks(int(child))
    return peaks


def main(arguments: argparse.Namespace) -> None:
    """Measure and write the record."""
    size = {key: getattr(arguments, key) for key in ("cells", "resamples", "threads", "images")}
    costs = measure(**size)
    record = {
        "command": "python -m prunecal.benchmark.scoring "
        + " ".join(f"--{key} {value}" for key, value in size.items()),
        "rows": len(SUBSETS) * arguments.images * PER_IMAGE,
        **size,
        **costs,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "python": platform.python_version(),
        "load_before": [round(load, 2) for load in arguments.load],
    }
    runs = files.read_json(arguments.output) if arguments.output.exists() else []
    with files.atomic(arguments.output) as temporary:
        temporary.write_text(json.dumps([*runs, record], indent=2) + "\n", encoding="utf-8")


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("--cells", type=int, default=60, help="cells to score")
    parser.add_argument("--resamples", type=int, default=2000, help="resamples of images")
    parser.add_argument("--images", type=int, default=IMAGES, help="images, of 18 rows each")
    parser.add_argument("--threads", type=int, default=2, help="processes of the score stage")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/scoring.json"))
    parser.set_defaults(load=os.getloadavg())
    return parser.parse_args(command)


if __name__ == "__main__":
    cli.run(main, arguments_of())
