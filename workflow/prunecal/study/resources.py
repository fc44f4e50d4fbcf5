"""Memory and time that a job asks a scheduler for, from the sizes of its model and data set.

They are meant to suffice at the first attempt on a slow card, not to be near: a job that asks for
too much waits longer in the queue, one that asks for too little is killed.
"""

from collections.abc import Callable
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

from prunecal.storage import files

MEGABYTE = 2**20
START_MB = 2500  # Python, torch, a micro-batch on the CPU
PER_WEIGHT = 2.2  # they pass through main memory, twice as wide if the study wants float32
START_MINUTES = 15  # imports and a load of weights from a slow file system
BYTES = 2  # of a parameter; with wider ones, the estimate errs upwards
FLOPS = {"GPU": 20e12, "thread": 30e9}  # per second, on old hardware
TOKENS = 40  # of text around each image, and again around each question
LETTERS = 3  # of a token of text


def _remembered(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Read a file once, and anew when it has changed: a plan asks for each of its jobs."""
    known = cache(lambda path, _: read(path))
    return lambda path: known(path, Path(path).stat().st_mtime_ns)


@_remembered
def _weights(manifest: str) -> int:
    """Return the bytes of a model's weights."""
    listed = files.read_json(manifest)["files"]
    return sum(file["size"] for file in listed if file["name"].endswith(".safetensors"))


@_remembered
def _asked(questions: str) -> tuple[int, float]:
    """Return how many images are asked about, and the tokens of all questions' texts."""
    import pyarrow.compute as pc

    table = files.read_table(questions, ["image_id", "text"])
    letters = pc.sum(pc.utf8_length(table["text"])).as_py() or 0
    return pc.count_distinct(table["image_id"]).as_py(), letters / LETTERS + TOKENS * len(table)


@_remembered
def _shown(images: str) -> int:
    """Return the number of images."""
    return files.read_table(images, ["image_id"]).num_rows


def memory_mb(manifest: str) -> int:
    """Return the main memory in MB for a job that loads a model.

    Args:
        manifest: manifest.json of the model.

    Raises:
        FileNotFoundError: it is not made yet; Snakemake asks again once it is.
        PrunecalError: it is damaged.
    """
    return START_MB + ceil(PER_WEIGHT * _weights(manifest) / MEGABYTE)


def memory_mb_with(file: str) -> int:
    """Return the main memory in MB for a job that may read all of a file.

    Args:
        file: for example features.safetensors.

    Raises:
        FileNotFoundError: it is not made yet; Snakemake asks again once it is.
    """
    return START_MB + ceil(Path(file).stat().st_size / MEGABYTE)


def minutes(manifest: str, tokens: float, gpus: int, threads: int) -> int:
    """Return the minutes for a job that takes this many tokens through a model.

    Args:
        manifest: manifest.json of the model.
        tokens: of all cells of the job.
        gpus: that the job gets; without any, the CPU computes.
        threads: of the CPU.

    Raises:
        FileNotFoundError, PrunecalError: as `memory_mb`.
    """
    parameters = _weights(manifest) / BYTES
    rate = FLOPS["GPU"] if gpus else threads * FLOPS["thread"]
    return START_MINUTES + ceil(2 * parameters * tokens / rate / 60)


def asked_tokens(questions: str, budgets: list[int]) -> float:
    """Return the tokens of all questions of a data set under all budgets of a job.

    An image and what stands before it counts once per budget, however many questions ask of it.

    Args:
        questions: questions.parquet.
        budgets: of the job's cells.

    Raises:
        FileNotFoundError, PrunecalError: as `memory_mb`.
    """
    images, text = _asked(questions)
    return images * sum(TOKENS + budget for budget in budgets) + len(budgets) * text


def shown_tokens(images: str, visual_tokens: int) -> float:
    """Return the visual tokens of all images of a data set.

    Args:
        images: images.parquet.
        visual_tokens: of an image.

    Raises:
        FileNotFoundError, PrunecalError: as `memory_mb`.
    """
    return visual_tokens * _shown(images)
