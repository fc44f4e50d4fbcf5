"""The first day of the paper's study: its unchanged file, by Snakemake, from a Hub on loopback.

The Hub has the true names, revisions, settings and tensor names, thin random weights in three
shards, and stand-ins for photographs. All is as on the day but for the device, the CPU. It takes
minutes, so it runs where it is asked for, with a seed of weights and photographs:

    PRUNECAL_REHEARSAL=1 pytest -q tests/workflow/test_rehearsal.py

`tests/unit/test_first_day.py` always runs the stages that compute.
"""

import io
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from helpers import hub_study
from helpers.loopback_hub import serve
from prunecal.storage import files

SEED = os.environ.get("PRUNECAL_REHEARSAL")
CPU = {"inference": {"device": "cpu", "gpus_per_job": 0}}
CELLS = 86
HALF = 0.01  # of logits: what float16 rounds, several times over


@pytest.mark.skipif(not SEED, reason="NOT TESTED: minutes; set PRUNECAL_REHEARSAL to a seed")
def test_every_step_runs_and_the_unpruned_answers_are_those_of_transformers(tmp_path):
    cache, overlay = tmp_path / "cache", tmp_path / "cpu.yaml"
    overlay.write_text(yaml.safe_dump(CPU))

    def snakemake(*arguments, **environment):
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
        command += ["--directory", str(tmp_path), "--configfile", str(hub_study.STUDY)]
        done = subprocess.run(
            [*command, str(overlay)],
            cwd=hub_study.ROOT,
            env=os.environ | {"HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_XET": "1"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    with serve(hub_study.hubs(int(SEED), photographs=4)) as address:
        snakemake("check", HF_ENDPOINT=address)
        said = snakemake(HF_ENDPOINT=address)
    assert re.search(r"\b(\d+) of \1 steps \(100%\) done", said)
    assert "Nothing to be done" in snakemake("--dry-run", HF_HUB_OFFLINE="1")

    results = tmp_path / "results" / hub_study.NAME
    assert len(list(results.glob("*/*/*/predictions.parquet"))) == CELLS
    page = (results / "summary.html").read_text(encoding="utf-8")
    assert "pope, llava-1.5-7b: the unpruned model is at chance: accuracy 0." in page
    assert re.search(r"unpruned accuracy 0\.\d{3}, published 0\.871: differs", page)
    (snapshot,) = cache.glob("models--*/snapshots/*")
    answer = hub_study.reference(snapshot)
    for name in hub_study.DATASETS:
        assert difference(tmp_path / "results", name, answer) < HALF


def difference(results, name, answer):
    """Return the largest difference of the unpruned model's logits, of every third question."""
    (data,) = results.glob(f"**/datasets/{name}")
    asked = files.read_table(data / "questions.parquet", ["text", "options"]).to_pylist()
    images = files.read_table(data / "images.parquet", ["image_id", "bytes"]).to_pylist()
    images = {row["image_id"]: Image.open(io.BytesIO(row["bytes"])) for row in images}
    (path,) = results.glob(f"{hub_study.NAME}/{name}/full/*/predictions.parquet")
    answered = files.read_table(path, ["image_id", "logits"]).to_pylist()
    return max(
        np.abs(answer(images[row["image_id"]], one["text"], one["options"]) - row["logits"]).max()
        for row, one in list(zip(answered, asked, strict=True))[::3]
    )
