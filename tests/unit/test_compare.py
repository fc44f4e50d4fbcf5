"""The tables that compare makes of score files."""

import csv

import numpy as np
import pyarrow.csv
import pytest

from prunecal import compare
from prunecal.core.errors import PrunecalError
from prunecal.statistics.scores import read_scores
from prunecal.statistics.significance import step_down, unadjusted_p
from prunecal.storage import files
from prunecal.storage.arrays import open_arrays, write_arrays

SUBSETS = [{"name": "all", "n": 30, "n_images": 25}, {"name": "unique", "n": 20, "n_images": 25}]
CELLS = [
    {"strategy": "full", "family": "full", "parameters": {}, "budget": 16},
    {"strategy": "random-seed0", "family": "random", "parameters": {"seed": 0}, "budget": 4},
    {
        "strategy": "scope-alpha0.5",
        "family": "scope",
        "parameters": {"alpha": 0.5, "exact": True},
        "budget": 4,
    },
]
RESAMPLES = 100


def write_scores(path, dataset="d", cells=CELLS, seed=0, metrics=("brier", "n_visual")):
    rng = np.random.default_rng(seed)
    shape = (len(cells), len(SUBSETS))
    arrays = {
        "bins_filled": np.full(shape, 8),
        "largest_bin_share": np.full(shape, 0.5),
    }
    for metric in metrics:
        value = rng.uniform(0.1, 0.2, shape)
        arrays[f"value/{metric}"] = value
        noise = rng.normal(scale=0.02, size=(*shape, RESAMPLES))
        arrays[f"draws/{metric}"] = (value[..., None] + noise).astype(np.float32)
    facts = {"model": "m", "dataset": dataset, "cells": cells, "subsets": SUBSETS}
    facts |= {"metrics": list(metrics), "resamples": dict.fromkeys(metrics, RESAMPLES)}
    write_arrays(path, arrays, facts | {"bins": 15, "seed": 0})
    return path


def run(folder, *paths):
    command = ["--scores", *map(str, paths), "--folder", str(folder)]
    compare.main(compare.arguments_of(command))
    return [
        files.read_table(folder / f"{name}.parquet").to_pandas()
        for name in ("metrics", "comparisons")
    ]


def test_tables_have_the_columns_and_rows_that_others_rely_on(tmp_path):
    paths = [write_scores(tmp_path / name, name) for name in ("b", "a")]
    metrics, comparisons = run(tmp_path, *paths)
    keys = ["model", "dataset", "subset", "strategy", "family", "alpha", "exact", "seed"]
    keys += ["budget", "metric"]
    counts = ["n", "n_images"]
    use = ["bins_filled", "largest_bin_share"]
    assert list(metrics) == [*keys, "value", "ci_low", "ci_high", *counts, *use]
    assert (metrics["bins_filled"] == 8).all()
    assert (metrics["largest_bin_share"] == 0.5).all()
    numbers = ["delta", "ci_low", "ci_high", "p", "p_adjusted"]
    assert list(comparisons) == [*keys, *numbers, *counts]
    assert len(metrics) == 2 * 3 * 2 * 2
    assert len(comparisons) == 2 * 2 * 2 * 1
    for table in (metrics, comparisons):
        assert not table.duplicated(
            ["model", "dataset", "subset", "strategy", "budget", "metric"]
        ).any()
    assert set(comparisons["strategy"]) == {"random-seed0", "scope-alpha0.5"}
    assert set(comparisons["metric"]) == {"brier"}
    assert list(metrics["dataset"].unique()) == ["a", "b"]


def test_parameters_are_null_where_a_strategy_has_none(tmp_path):
    metrics, _ = run(tmp_path, write_scores(tmp_path / "s"))
    by_strategy = metrics.drop_duplicates("strategy").set_index("strategy")
    assert by_strategy.loc["scope-alpha0.5", "alpha"] == 0.5
    assert by_strategy.loc["random-seed0", "seed"] == 0
    assert by_strategy.loc["full", ["alpha", "exact", "seed"]].isna().all()


def test_numbers_are_those_of_the_draws(tmp_path):
    path = write_scores(tmp_path / "s")
    metrics, comparisons = run(tmp_path, path)
    (scores,) = read_scores([path])
    value, draws = scores.value("brier"), scores.draws("brier")
    row = metrics.query("strategy == 'random-seed0' and subset == 'unique' and metric == 'brier'")
    assert row["value"].item() == value[1, 1]
    ends = row[["ci_low", "ci_high"]].to_numpy()[0]
    np.testing.assert_allclose(ends, np.quantile(draws[1, 1], [0.025, 0.975]))
    difference = draws[1:] - draws[0]
    change = value[1:] - value[0]
    images = [subset["n_images"] for subset in scores.subsets]
    families = [(change[:, j], difference[:, j], images[j]) for j in range(2)]  # a subset each
    p = np.stack([unadjusted_p(*family) for family in families], axis=1)
    adjusted = np.stack([step_down(*family) for family in families], axis=1)
    by_place = comparisons.set_index(["strategy", "subset"])
    for i, strategy in enumerate(("random-seed0", "scope-alpha0.5")):
        for j, subset in enumerate(("all", "unique")):
            row = by_place.loc[(strategy, subset)]
            assert row["delta"] == value[i + 1, j] - value[0, j]
            expected = np.quantile(difference[i, j], [0.025, 0.975])
            np.testing.assert_allclose([row["ci_low"], row["ci_high"]], expected)
            assert row["p"] == p[i, j]
            assert row["p_adjusted"] == adjusted[i, j]
            assert row["n"] == SUBSETS[j]["n"]


def test_csv_says_the_same_as_parquet(tmp_path):
    metrics, comparisons = run(tmp_path, write_scores(tmp_path / "s"))
    for name, table in (("metrics", metrics), ("comparisons", comparisons)):
        text = pyarrow.csv.read_csv(tmp_path / f"{name}.csv").to_pandas()
        assert list(text) == list(table)
        np.testing.assert_array_equal(text["ci_low"], table["ci_low"])
        np.testing.assert_array_equal(text["strategy"], table["strategy"])


def test_same_scores_give_the_same_bytes(tmp_path):
    path = write_scores(tmp_path / "s")
    run(tmp_path / "a", path)
    run(tmp_path / "b", path)
    for name in ("metrics.parquet", "metrics.csv", "comparisons.parquet", "detectable.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_undefined_metric_is_null_and_leaves_the_others_alone(tmp_path):
    path = write_scores(tmp_path / "s")
    file = open_arrays(path)
    arrays = {key: file.get_tensor(key).copy() for key in file.keys()}  # noqa: SIM118  no mapping
    arrays["value/brier"][1, 0] = np.nan
    arrays["draws/brier"][1, 0] = np.nan
    write_arrays(path, arrays, file.facts)
    metrics, comparisons = run(tmp_path, path)
    row = metrics.query("strategy == 'random-seed0' and subset == 'all' and metric == 'brier'")
    assert row[["value", "ci_low", "ci_high"]].isna().all(axis=None)
    missing = comparisons[["delta", "ci_low", "ci_high", "p", "p_adjusted"]].isna()
    assert missing.to_numpy().sum(axis=0).tolist() == [1] * 5


def test_detectable_difference_shrinks_with_the_noise(tmp_path):
    run(tmp_path, write_scores(tmp_path / "s"))
    table = pyarrow.csv.read_csv(tmp_path / "detectable.csv").to_pandas()
    expected = (1.96 + 0.84) * 0.02 * np.sqrt(2)
    np.testing.assert_allclose(table["minimum_detectable"], expected, rtol=0.25)
    assert (table["resamples"] == RESAMPLES).all()


def test_what_cannot_be_detected_is_left_empty(tmp_path):
    path = write_scores(tmp_path / "s")
    file = open_arrays(path)
    arrays = {key: file.get_tensor(key).copy() for key in file.keys()}  # noqa: SIM118  no mapping
    arrays["draws/brier"][:] = np.nan
    write_arrays(path, arrays, file.facts)
    run(tmp_path, path)
    with (tmp_path / "detectable.csv").open() as lines:
        found = {row["metric"]: row["minimum_detectable"] for row in csv.DictReader(lines)}
    assert found.pop("brier") == ""
    assert all(map(float, found.values()))


def test_study_without_the_unpruned_model_is_refused(tmp_path):
    path = write_scores(tmp_path / "s", cells=CELLS[1:])
    with pytest.raises(PrunecalError, match="no cell of strategy 'full'"):
        run(tmp_path, path)


def test_one_data_set_twice_is_refused(tmp_path):
    paths = [write_scores(tmp_path / name) for name in ("a", "b")]
    with pytest.raises(PrunecalError, match="same model and data set"):
        run(tmp_path, *paths)


def test_parameter_called_like_a_column_is_refused(tmp_path):
    cells = [*CELLS[:2], CELLS[2] | {"parameters": {"metric": 1}}]
    with pytest.raises(PrunecalError, match="'metric' is also a column"):
        run(tmp_path, write_scores(tmp_path / "s", cells=cells))


def test_stage_needs_neither_torch_nor_transformers():
    import subprocess
    import sys

    code = (
        "import sys, prunecal.score, prunecal.compare, prunecal.claims; "
        "heavy = {'torch', 'transformers', 'datasets'} & set(sys.modules); "
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    path = ":".join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def with_images(path, images, values=None):
    """Write scores of a subset of that many images; with one, every resample is the sample."""
    write_scores(path, metrics=("accuracy", "brier"))
    file = open_arrays(path)
    arrays = {key: file.get_tensor(key).copy() for key in file.keys()}  # noqa: SIM118  no mapping
    if values is not None:
        arrays["value/accuracy"][:] = values
        arrays["draws/accuracy"][:] = values
    facts = dict(file.facts)
    facts["subsets"] = [subset | {"n_images": images} for subset in SUBSETS]
    write_arrays(path, arrays, facts)
    return path


def test_one_image_gives_neither_interval_nor_test(tmp_path):
    metrics, comparisons = run(tmp_path, with_images(tmp_path / "s", 1))
    assert metrics[["ci_low", "ci_high"]].isna().all(axis=None)
    assert comparisons[["ci_low", "ci_high", "p", "p_adjusted"]].isna().all(axis=None)
    assert metrics["value"].notna().all()
    assert comparisons["delta"].notna().all()


def test_few_images_give_intervals_but_no_p_values(tmp_path):
    metrics, comparisons = run(tmp_path, with_images(tmp_path / "s", 19))
    assert metrics[["ci_low", "ci_high"]].notna().all(axis=None)
    assert comparisons[["p", "p_adjusted"]].isna().all(axis=None)
    with (tmp_path / "detectable.csv").open() as lines:
        assert {row["minimum_detectable"] for row in csv.DictReader(lines)} == {""}
    _, comparisons = run(tmp_path, with_images(tmp_path / "s", 20))
    assert comparisons[["p", "p_adjusted"]].notna().all(axis=None)


@pytest.mark.parametrize("images", [20, 400])
def test_a_cell_without_errors_is_not_certain_to_have_none(tmp_path, images):
    """The bound is the share of images without errors that shows none with probability 0.025."""
    metrics, _ = run(tmp_path, with_images(tmp_path / "s", images, values=1.0))
    accuracy = metrics[metrics["metric"] == "accuracy"]
    assert (accuracy["ci_high"] == 1).all()
    np.testing.assert_allclose(accuracy["ci_low"] ** images, 0.025)
    metrics, _ = run(tmp_path, with_images(tmp_path / "s", images, values=0.0))
    accuracy = metrics[metrics["metric"] == "accuracy"]
    assert (accuracy["ci_low"] == 0).all()
    np.testing.assert_allclose((1 - accuracy["ci_high"]) ** images, 0.025)


def test_rounding_puts_no_value_outside_its_interval(tmp_path):
    value = 0.843927
    assert float(np.float32(value)) != value
    metrics, _ = run(tmp_path, with_images(tmp_path / "s", 30, values=value))
    accuracy = metrics[metrics["metric"] == "accuracy"]
    assert (accuracy["ci_low"] <= value).all()
    assert (accuracy["ci_high"] >= value).all()
