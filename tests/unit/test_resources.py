"""What jobs ask for grows with the model and the data set."""

import json
import os
from types import SimpleNamespace

import pyarrow as pa
import pytest

from prunecal.core.errors import PrunecalError
from prunecal.sources.image_files import LONGEST_SIDE
from prunecal.storage import files
from prunecal.study import resources
from prunecal.study.run_settings import Inference

LARGE = {
    "files": [{"name": "a.safetensors", "size": 14 * 10**9}, {"name": "b.json", "size": 10**9}]
}
SMALL = {"files": [{"name": "a.safetensors", "size": 5 * 10**6}]}


@pytest.fixture
def manifest(tmp_path):
    def write(content):
        (tmp_path / "manifest.json").write_text(json.dumps(content))
        return str(tmp_path / "manifest.json")

    return write


def questions(folder, images, each, letters=30):
    rows = images * each
    columns = {
        "image_id": [f"{row // each}" for row in range(rows)],
        "text": ["x" * letters] * rows,
    }
    files.write_table(folder / "questions.parquet", pa.table(columns), {})
    return str(folder / "questions.parquet")


def test_memory_holds_the_weights(manifest):
    assert resources.memory_mb(manifest(SMALL)) == resources.START_MB + 11
    found = resources.memory_mb(manifest(LARGE))
    assert 14 * 10**9 / 2**20 < found < 34_000


def test_a_file_that_changes_is_read_again(manifest):
    path = manifest(SMALL)
    assert resources.memory_mb(path) < 3000
    manifest(LARGE)
    os.utime(path, (0, 0))
    assert resources.memory_mb(path) > 14_000


def test_a_file_may_be_read_whole(tmp_path):
    (tmp_path / "features").write_bytes(bytes(3 * 2**20))
    assert resources.memory_mb_with(str(tmp_path / "features")) == resources.START_MB + 3


def test_an_image_counts_once_and_its_questions_each(tmp_path):
    path = questions(tmp_path, images=4, each=3)
    one = 4 * (resources.TEMPLATE_TOKENS + 10) + 12 * (
        resources.TEMPLATE_TOKENS + 30 / resources.CHARACTERS_PER_TOKEN
    )
    assert resources.question_tokens(path, [10]) == one
    assert resources.question_tokens(path, [10, 20]) == 2 * one + 4 * 10


def test_all_images_are_shown(tmp_path):
    table = pa.table({"image_id": ["a", "b"], "bytes": [b"", b""]})
    files.write_table(tmp_path / "images.parquet", table, {})
    assert resources.image_tokens(str(tmp_path / "images.parquet"), 576) == 2 * 576


def test_minutes_grow_with_the_model_and_the_tokens_and_fall_with_threads(manifest):
    path = manifest(LARGE)
    once, twice = (resources.minutes(path, tokens, 1, 1) for tokens in (10**7, 2 * 10**7))
    assert once - resources.START_MINUTES == pytest.approx(2 * 7e9 * 1e7 / 20e12 / 60, abs=1)
    assert twice - once == pytest.approx(once - resources.START_MINUTES, abs=1)
    alone, four = (resources.minutes(path, 10**5, 0, threads) for threads in (1, 4))
    assert alone - resources.START_MINUTES == pytest.approx(
        4 * (four - resources.START_MINUTES), abs=4
    )
    assert resources.minutes(manifest(SMALL), 10**5, 1, 1) == resources.START_MINUTES + 1


def test_a_job_that_runs_a_model_requests_what_it_needs_and_more_at_each_attempt(manifest):
    run = Inference(threads=3)
    requested = resources.model_job(run, lambda factor, _: 10**7 * factor)
    job = SimpleNamespace(manifest=manifest(LARGE))
    assert requested["gpu"] == 0
    assert requested["mem_mb"](1, job, attempt=2) == 2 * resources.memory_mb(job.manifest)
    more = resources.model_job(run, lambda *_: 1, more_mb=7)["mem_mb"](1, job, attempt=2)
    assert more == 2 * (resources.memory_mb(job.manifest) + 7)
    assert requested["runtime"](4, job, attempt=3) == 3 * resources.minutes(
        job.manifest, 4 * 10**7, 0, 3
    )
    assert set(requested) == {"gpu", "mem_mb", "runtime"}


def test_a_job_on_a_gpu_needs_main_memory_for_its_files_but_not_for_the_weights(manifest, tmp_path):
    requested = resources.model_job(Inference(gpus_per_job=2), lambda *_: 1)
    assert requested["gpu"] == 2
    for name in ("images", "features"):
        (tmp_path / name).write_bytes(bytes(3 * 2**20))
        job = SimpleNamespace(**{"manifest": manifest(LARGE), name: str(tmp_path / name)})
        assert requested["mem_mb"](1, job, attempt=2) == 2 * (resources.GPU_START_MB + 3)
    assert resources.memory_mb(job.manifest) / 4 > resources.GPU_START_MB + 3
    on_the_cpu = resources.model_job(Inference(gpus_per_job=1, device="cpu"), lambda *_: 1)
    assert on_the_cpu["mem_mb"](1, job, attempt=1) == resources.memory_mb(job.manifest)
    with pytest.raises(FileNotFoundError):  # by which Snakemake knows that it comes later
        requested["mem_mb"](1, SimpleNamespace(images=str(tmp_path / "later")), attempt=1)


def test_a_job_that_decodes_images_requests_enough_for_the_largest():
    largest = 16 * LONGEST_SIDE**2 / 2**20  # bytes a pixel in the decoder of WebP
    libraries = 700  # measured: Python, torch, transformers and a small model
    assert 1.2 * (libraries + largest) < resources.START_MB + resources.IMAGE_MB


def test_what_a_study_sets_for_its_jobs_replaces_the_guess():
    slurm = {"slurm_partition": "gpu", "gpu_model": "h200", "slurm_extra": "--exclude=n1 --nice"}
    run = Inference(gpus_per_job=1, mem_mb=700, runtime=5, **slurm)
    requested = resources.model_job(run, lambda *_: pytest.fail("counted"))
    assert requested.items() >= slurm.items()
    job = SimpleNamespace(manifest="none")
    assert requested["mem_mb"](None, job, attempt=2) == 1400
    assert requested["runtime"](None, job, attempt=2) == 10


def test_a_file_that_is_not_made_yet_is_no_fault_but_a_damaged_one_is(tmp_path):
    path = str(tmp_path / "manifest.json")
    with pytest.raises(FileNotFoundError) as missing:
        resources.memory_mb(path)
    assert missing.value.filename == path  # by which Snakemake knows that it comes later
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(PrunecalError, match=r"manifest\.json"):
        resources.memory_mb(path)
