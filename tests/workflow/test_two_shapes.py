"""Pictures of two shapes, which have different numbers of visual tokens, from images to tables."""

import pandas as pd

from prunecal.storage import files

MODEL = {
    "name": "native",
    "family": "llava-native",
    "patches": 100,
    "path": "results/models/tiny/weights",
}
DATASET = {"name": "shapes", "loader": "digits-shapes", "images": 6, "seed": 1}
STUDY = {"study": "two-shapes", "strategies": ["full", "uniform"], "budgets": ["40%"]}


def test_a_study_of_pictures_of_two_shapes_runs_from_images_to_tables(project):
    project.change(**STUDY, models=[MODEL], datasets=[DATASET])
    project.run("results/two-shapes/comparisons.parquet")
    metrics = pd.read_parquet(project.folder / "results" / "two-shapes" / "metrics.parquet")
    shares = set(zip(metrics["strategy"], metrics["share"].round(9), strict=True))
    assert shares == {("full", 1), ("uniform", 0.4)}
    cells = project.folder / "results" / "native" / "shapes"
    for cell, numbers in (("full/all", {60, 100}), ("uniform/40pct", {24, 40})):
        kept = files.read_table(cells / cell / "predictions.parquet")["n_visual"].to_pylist()
        assert set(kept) == numbers
