"""Resources that jobs request of a scheduler, from the sizes of their model and data set.

Generous guesses on purpose: a job that requests too much waits longer in the queue, one that
requests too little is killed.
"""

from collections.abc import Callable
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

from prunecal.storage import files
from prunecal.study.run_settings import SLURM_KEYS, Inference

MEGABYTE = 2**20
START_MB = 2500  # Python, torch, a micro-batch on the CPU
# Where images are decoded, for one of the largest size beside what START_MB leaves: each of its 179
# million pixels takes 16 bytes in WebP's decoder and 14 in image processors of models.
IMAGE_MB = 2000
PER_WEIGHT_BYTE = 2.2  # bytes of main memory; float32 is twice as wide as the file
GPU_START_MB = 6000  # the same with CUDA's libraries, and a tensor of the weights on its way
WITH_ACTIVATIONS = 1.25  # of the weights on a GPU; at 7B, activations and the head take 3 GB more
START_MINUTES = 15  # imports and a load of weights from a slow file system
BYTES_PER_PARAMETER = 2  # of wider ones the time is overestimated
FLOPS_PER_SECOND = {"GPU": 20e12, "thread": 30e9}  # of old hardware
TEMPLATE_TOKENS = 40  # of text around each image, and again around each question
CHARACTERS_PER_TOKEN = 3


def growing(amount: int) -> Callable[..., int]:
    """Return a resource that grows with each attempt of a job."""
    return lambda wildcards, attempt: amount * attempt  # noqa: ARG005  Snakemake names them


def model_job(
    run: Inference, tokens: Callable[[Any, Any], float], more_mb: int = 0
) -> dict[str, Any]:
    """Return the `resources:` of a rule that runs a model.

    Memory and time are those that the study sets, else what the model and the tokens need; both
    grow with each attempt.

    Args:
        run: the study's `inference:` block.
        tokens: counts a job's tokens, given its wildcards and its input, which names `manifest`.
        more_mb: main memory that the job needs besides the model.
    """

    def memory(wildcards: Any, input: Any, attempt: int) -> int:  # noqa: A002, ARG001
        if run.mem_mb:
            needed = run.mem_mb
        elif run.job_device != "cuda":
            needed = memory_mb(input.manifest) + more_mb
        else:  # weights go straight to the GPU; images and features stay here
            held = Path(getattr(input, "features", None) or input.images)
            needed = GPU_START_MB + more_mb + ceil(held.stat().st_size / MEGABYTE)
        return attempt * needed

    def time(wildcards: Any, input: Any, attempt: int) -> int:  # noqa: A002
        return attempt * (
            run.runtime
            or minutes(input.manifest, tokens(wildcards, input), run.gpus_per_job, run.threads)
        )

    slurm = {key: value for key in SLURM_KEYS if (value := getattr(run, key)) is not None}
    return {"gpu": run.gpus_per_job, "mem_mb": memory, "runtime": time, **slurm}


def _until_changed(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Cache what is read from a file until the file changes: each job of a plan reads the same."""
    cached = cache(lambda path, _: read(path))
    return lambda path: cached(path, Path(path).stat().st_mtime_ns)


@_until_changed
def _weight_bytes(manifest: str) -> int:
    """Return the bytes of a model's weights."""
    listed = files.read_json(manifest)["files"]
    return sum(file["size"] for file in listed if file["name"].endswith(".safetensors"))


@_until_changed
def _images_and_text_tokens(questions: str) -> tuple[int, float]:
    """Return how many images the questions are about, and the tokens of all questions' texts."""
    import pyarrow.compute as pc

    table = files.read_table(questions, ["image_id", "text"])
    characters = pc.sum(pc.utf8_length(table["text"])).as_py() or 0
    tokens = characters / CHARACTERS_PER_TOKEN + TEMPLATE_TOKENS * len(table)
    return pc.count_distinct(table["image_id"]).as_py(), tokens


@_until_changed
def _images(images: str) -> int:
    """Return the number of images."""
    return files.read_table(images, ["image_id"]).num_rows


def loaded_bytes(stored: int, dtype: str) -> int:
    """Return the bytes of a model in memory from those of its files, of 16 bits per weight."""
    return stored * (2 if dtype == "float32" else 1)


def memory_mb(manifest: str) -> int:
    """Return the main memory in MB for a job that loads a model.

    Args:
        manifest: manifest.json of the model.

    Raises:
        FileNotFoundError: it does not exist yet; Snakemake asks again once it does.
        PrunecalError: it is damaged.
    """
    return START_MB + ceil(PER_WEIGHT_BYTE * _weight_bytes(manifest) / MEGABYTE)


def memory_mb_with(file: str) -> int:
    """Return the main memory in MB for a job that may read all of a file.

    Args:
        file: for example features.safetensors.

    Raises:
        FileNotFoundError: it does not exist yet; Snakemake asks again once it does.
    """
    return START_MB + ceil(Path(file).stat().st_size / MEGABYTE)


def minutes(manifest: str, tokens: float, gpus: int, threads: int) -> int:
    """Return the minutes for a job that runs a model.

    Args:
        manifest: manifest.json of the model.
        tokens: that pass through the model, of all cells of the job.
        gpus: of the job; without any, the CPU computes.
        threads: of the CPU.

    Raises:
        FileNotFoundError, PrunecalError: as `memory_mb`.
    """
    parameters = _weight_bytes(manifest) / BYTES_PER_PARAMETER
    rate = FLOPS_PER_SECOND["GPU"] if gpus else threads * FLOPS_PER_SECOND["thread"]
    return START_MINUTES + ceil(2 * parameters * tokens / rate / 60)


def question_tokens(questions: str, budgets: list[int]) -> float:
    """Return the tokens of all questions of a data set under all budgets of a job.

    An image and what precedes it count once per budget, however many questions are about it.

    Args:
        questions: questions.parquet.
        budgets: of the job's cells.

    Raises:
        FileNotFoundError, PrunecalError: as `memory_mb`.
    """
    images, text = _images_and_text_tokens(questions)
    return images * sum(TEMPLATE_TOKENS + budget for budget in budgets) + len(budgets) * text


def image_tokens(images: str, visual_tokens: int) -> float:
    """Return the visual tokens of all images of a data set.

    Args:
        images: images.parquet.
        visual_tokens: of an image.

    Raises:
        FileNotFoundError, PrunecalError: as `memory_mb`.
    """
    return visual_tokens * _images(images)
