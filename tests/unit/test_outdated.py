"""Files made from other inputs or with other settings are named; all others are not.

tests/unit/test_planted_faults.py shows the same on a study that ran.
"""

import shutil

import numpy as np
import pyarrow as pa
import pytest

from prunecal.caching import outdated
from prunecal.storage import files
from prunecal.storage.arrays import write_arrays
from prunecal.study.cells import cells, load_study

SETTINGS = {
    "title": "x",
    "models": [{"name": "m", "family": "llava", "visual_tokens": 4, "path": "given"}],
    "datasets": [{"name": "d", "loader": "digits-pope", "images": 2}],
    "strategies": ["full", "saliency"],
    "budgets": [2],
    "statistics": {"resamples": 100},
}


@pytest.fixture
def results(tmp_path):
    """Write the files of a study with the metadata and sources that its stages give them."""
    results, study = tmp_path / "results", load_study(SETTINGS)
    (model,) = study.models
    folder, table = results / "m" / "d", pa.table({"x": [1]})
    files.write_json(results / "models" / "m" / "manifest.json", {"family": "llava"})
    data = {"loader": "digits-pope", "params": {"images": 2, "seed": 0}}
    images, questions = (results / f"datasets/d/{name}.parquet" for name in ("images", "questions"))
    for path in (images, questions):
        files.write_table(path, table, data)
    features = folder / "features.safetensors"
    arrays = {"x": np.ones(2)}
    write_arrays(features, arrays, model.run_settings(), [images])
    predictions = []
    for cell in cells(study, model):
        facts = {"family": cell.family, "parameters": dict(cell.parameters)}
        write_arrays(folder / cell.strategy / "ranking.safetensors", arrays, facts, [features])
        path = folder / cell.strategy / str(cell.budget) / "predictions.parquet"
        placed = {"model": "m", "dataset": "d", **cell.settings()}
        files.write_table(
            path, table, {"cell": placed, "batch_tokens": 4096, **model.run_settings()}
        )
        predictions.append(path)
    scores = results / "scores" / "m" / "d.safetensors"
    facts = {
        "model": "m",
        "dataset": "d",
        "cells": [{**cell.settings(), "visual_tokens": 4} for cell in cells(study, model)[::-1]],
        "resamples": {"ece": 100, "smooth_ece": 50},
        "seed": 0,
        "bins": 15,
    }
    write_arrays(scores, arrays, facts, [*predictions, questions])
    for name in ("metrics", "comparisons"):
        files.write_table(results / f"{name}.parquet", table, {"level": 0.95}, [scores])
    files.write_json(results / "claims.json", [], [scores])
    files.write_json(results / "study.json", SETTINGS)
    return results


def named(results, settings=None, damaged=()):
    """Return what is named, by its path below the results."""
    settings = settings or SETTINGS
    rows = [
        *outdated.from_other_sources(results, damaged),
        *outdated.of_other_settings(results, load_study(settings), settings, damaged),
    ]
    return {str(path.relative_to(results)): reason for path, reason in rows}


TABLES = {"metrics.parquet", "comparisons.parquet", "claims.json"}
SCORES = "scores/m/d.safetensors"


def test_what_fits_together_is_not_named(results, tmp_path):
    assert named(results) == {}
    moved = tmp_path / "elsewhere" / "results"
    shutil.copytree(results, moved)
    shutil.rmtree(results)
    assert named(moved) == {}


def test_what_is_made_from_other_predictions_is_named_with_all_that_follows(results):
    path = results / "m" / "d" / "saliency" / "2" / "predictions.parquet"
    files.write_table(path, pa.table({"x": [2]}), files.read_facts(path))
    reasons = named(results)
    assert reasons.keys() == TABLES | {SCORES}
    assert reasons[SCORES] == "from another m/d/saliency/2/predictions.parquet"
    assert reasons["metrics.parquet"] == f"from {SCORES}, which is outdated"


def test_features_of_other_images_are_named_with_their_rankings(results):
    path = results / "datasets" / "d" / "images.parquet"
    files.write_table(path, pa.table({"x": [2]}), files.read_facts(path))
    assert named(results).keys() == {
        "m/d/features.safetensors",
        "m/d/full/ranking.safetensors",
        "m/d/saliency/ranking.safetensors",
    }


def test_a_table_that_does_not_say_from_what_it_was_made_is_named(results):
    (results / "metrics.csv").write_text("an edited table")
    files.record(results / "metrics.csv")
    assert named(results) == {"metrics.csv": "from files that it does not name"}


def test_nothing_is_said_of_what_came_from_a_damaged_file(results):
    path = results / "m" / "d" / "saliency" / "2" / "predictions.parquet"
    files.checksum_file(path).write_text("0" * 64)
    assert named(results, damaged=[path]) == {}


def test_what_is_gone_is_not_compared(results):
    shutil.rmtree(results / "m")
    assert named(results) == {}


CHANGES = {
    "images": ({"datasets": [SETTINGS["datasets"][0] | {"images": 3}]}, "datasets/d/{}.parquet"),
    "bins": ({"statistics": {"resamples": 100, "bins": 10}}, SCORES),
    "seed": ({"statistics": {"resamples": 100, "seed": 1}}, SCORES),
    "resamples": ({"statistics": {"resamples": 200}}, SCORES),
    "level": ({"statistics": {"resamples": 100, "level": 0.9}}, "metrics.parquet"),
    "budgets": ({"budgets": [2, 3]}, SCORES),
    "image": ({"models": [SETTINGS["models"][0] | {"image": "crop"}]}, "m/d/features.safetensors"),
    "batch": ({"inference": {"batch_tokens": 9}}, "m/d/saliency/2/predictions.parquet"),
    "title": ({"title": "y"}, "study.json"),
}


@pytest.mark.parametrize(("change", "name"), CHANGES.values(), ids=CHANGES.keys())
def test_files_of_other_settings_are_named(results, change, name):
    reasons = named(results, SETTINGS | change)
    assert reasons["study.json"] == f"with other settings ({next(iter(change))})"
    for one in [name.format(kind) for kind in ("images", "questions")]:
        assert reasons[one].startswith(("with ", "from other cells"))


def test_a_setting_that_moves_nothing_names_nothing_but_the_settings(results):
    assert named(results, SETTINGS | {"inference": {"threads": 2}}).keys() == {"study.json"}
