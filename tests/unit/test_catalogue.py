"""The catalogue knows every metric, and the public functions compute the study's numbers."""

import subprocess
import sys

import numpy as np
import pytest

from prunecal import calibration
from prunecal.calibration.catalogue import CATALOGUE
from prunecal.calibration.metrics import COSTLY, METRICS
from prunecal.calibration.sample import plain
from prunecal.statistics.predictions import Cell
from prunecal.statistics.readouts import Recorded
from prunecal.statistics.scoring import Resamples, cell_temperatures, score_cell

BY_OTHER_STAGES = {"saliency_share", "mean_saliency"}  # of rankings, see statistics.kept_saliency
OF_LOGITS = {"brier_multiclass", "nll", "temperature"}


def cell_of(n=400, seed=0):
    """A cell of yes/no questions, four about each image."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(n, 2)) * 2
    label = np.where(rng.uniform(size=n) < 0.7, table.argmax(axis=1), rng.integers(0, 2, n))
    rows = {
        "image_id": [f"image{row // 4}" for row in range(n)],
        "options": [["Yes", "No"]] * n,
        "label": label.tolist(),
    }
    recorded = Recorded(
        log_normaliser=np.logaddexp.reduce(table, axis=1) + 0.1,
        top_token=rng.integers(0, 3, n),
        spellings=table + 0.01,
        letters=rng.normal(size=(n, 4)),
        tokens={"Yes": 0, "No": 1},
        spelling_tokens={"Yes": [0, 2], "No": [1]},
    )
    facts = {"tokens_per_layer": 4.0}
    return Cell(facts, rows, table, np.full(n, 4.0), rng.uniform(size=n), recorded)


def scored(cell):
    """All metrics of a cell, as the score stage computes them, on rows that count once."""
    resamples = Resamples.of(np.array(cell.rows["image_id"]), 1, 1, seed=0)
    parts = {"all": np.arange(len(cell.table))}
    reference = cell_temperatures(cell, parts, resamples)
    (metrics,) = score_cell(cell, parts, resamples, reference, 15)
    return {key: values[0] for key, values in metrics.items()}


def test_the_catalogue_has_every_metric_that_is_scored_and_no_other():
    assert set(scored(cell_of())) | BY_OTHER_STAGES == set(CATALOGUE)
    assert not set(METRICS) & set(COSTLY)


@pytest.mark.parametrize(
    "key", [key for key, metric in CATALOGUE.items() if metric.function and key not in OF_LOGITS]
)
def test_the_public_function_computes_the_studys_number(key):
    cell = cell_of(seed=1)
    value = CATALOGUE[key].public(cell.confidence, cell.correct)
    assert value == pytest.approx(scored(cell)[key], abs=1e-12)  # summed by image there
    assert CATALOGUE[key].compute(plain(cell.confidence, cell.correct)) == value


@pytest.mark.parametrize("key", ["brier_multiclass", "nll"])
def test_the_public_function_of_logits_computes_the_studys_number(key):
    cell = cell_of(seed=2)
    value = CATALOGUE[key].public(cell.table, cell.label)
    assert value == pytest.approx(scored(cell)[key], abs=1e-12)


def test_a_metric_that_needs_more_than_the_sample_has_is_none():
    sample = plain([0.9, 0.6], [True, False])
    for key in ("nll", "temperature", "ece_temperature_transfer", "ece_yes", *BY_OTHER_STAGES):
        assert CATALOGUE[key].compute(sample) is None


def test_every_public_metric_is_in_the_catalogue():
    named = {metric.function for metric in CATALOGUE.values()}
    assert named - {""} == set(calibration.__all__) - {"Reliability", "reliability_diagram"}


def test_every_entry_has_a_label_of_its_own_and_a_sentence():
    assert len({metric.label for metric in CATALOGUE.values()}) == len(CATALOGUE)
    for metric in CATALOGUE.values():
        assert metric.definition.endswith(".")
        assert metric.axis_label.startswith(metric.label)


def test_a_direction_is_stated_where_a_better_one_exists():
    assert CATALOGUE["ece"].axis_label == "ECE (lower is better)"
    assert CATALOGUE["auroc"].axis_label == "AUROC (higher is better)"
    assert CATALOGUE["nll"].axis_label == "NLL (nats) (lower is better)"
    assert CATALOGUE["mean_confidence"].axis_label == "Mean confidence"


def test_the_catalogue_and_the_package_import_no_arrays():
    code = (
        "import sys, prunecal, prunecal.calibration.catalogue\n"
        "heavy = {'numpy', 'scipy', 'pandas', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from prunecal.calibration import aurc\n"
        "assert aurc([0.9, 0.8], [True, False]) == 0.25\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_the_package_does_not_have_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'ece'"):
        _ = calibration.ece


def test_the_score_stage_never_reads_labels_so_that_their_edits_score_nothing_again():
    code = "import sys, prunecal.score; assert 'prunecal.calibration.catalogue' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
