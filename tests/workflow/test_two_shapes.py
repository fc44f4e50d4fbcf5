"""Pictures of two shapes, which have different numbers of visual tokens, from images to tables."""

import pandas as pd
import pytest

from helpers import tiny_families
from prunecal.storage import files

MODEL = {
    "name": "tiny-qwen",
    "family": "qwen2-5-vl",
    "template": "qwen_vl-lmms",
    "min_pixels": 64,
    "max_pixels": 12_800,
    "layers": 4,
    "path": "tiny-qwen",
}
DATASET = {"name": "shapes", "loader": "digits-shapes", "images": 6, "seed": 1}
STUDY = {
    "study": "two-shapes",
    "strategies": ["full", "uniform", "downsample", "blind", {"strategy": "fastv", "layer": 1}],
    "budgets": {"tokens": ["40%"], "match": "mean_tokens"},
}


def test_a_study_of_pictures_of_two_shapes_runs_from_images_to_tables(project):
    """With smaller images, no image, and budgets that are matched by cost inside the decoder."""
    tiny_families.qwen(project.folder / MODEL["path"])
    project.change(**STUDY, models=[MODEL], datasets=[DATASET])
    project.run("results/two-shapes/comparisons.parquet")
    metrics = pd.read_parquet(project.folder / "results" / "two-shapes" / "metrics.parquet")
    shares = dict(zip(metrics["strategy"], metrics["share"], strict=True))
    matched = "fastv-layer1-matchmean_tokens"
    assert shares.pop("full") == 1
    assert shares.pop("blind") == 0
    assert shares == dict.fromkeys(("uniform", "downsample", matched), pytest.approx(0.4, abs=0.01))
    paths = [
        project.folder / "results" / "tiny-qwen" / "shapes" / cell / "predictions.parquet"
        for cell in ("full/all", "uniform/40pct", "downsample/40pct", f"{matched}/40pct", "blind/0")
    ]
    kept = [set(files.read_table(path)["n_visual"].to_pylist()) for path in paths]
    # two shapes; smaller images have whole tokens along both sides; FastV's first layer sees all
    assert kept == [{135, 196}, {54, 78}, {60, 81}, {27, 39}, {0}]
    layers = [files.read_facts(path)["tokens_per_layer"] for path in paths]
    assert layers[1] == pytest.approx(layers[3], abs=0.5)
