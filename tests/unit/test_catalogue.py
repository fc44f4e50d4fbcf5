"""The catalogue knows every metric, and the public functions compute the study's numbers."""

import subprocess
import sys

import numpy as np
import pytest

from prunecal import calibration
from prunecal.calibration.catalogue import CATALOGUE
from prunecal.calibration.crossfit import TwoFolds, slopes
from prunecal.calibration.metrics import COSTLY, METRICS, compute_all
from prunecal.calibration.sample import Sample

BY_OTHER_STAGES = {"saliency_share", "mean_saliency"}  # of rankings, see statistics.mechanisms
OF_LOGITS = {"brier_multiclass", "nll", "temperature"}


def sample_of(n=400, seed=0, weights=None):
    """A sample with logits, groups and further columns, whose rows all count once."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(n, 3)) * 2
    label = np.where(rng.uniform(size=n) < 0.7, table.argmax(axis=1), rng.integers(0, 3, n))
    confidence = 1 / np.exp(table - table.max(axis=1, keepdims=True)).sum(axis=1)
    correct = table.argmax(axis=1) == label
    cluster, fold = np.arange(n) // 4, np.arange(n // 4) % 2
    yes = rng.uniform(size=n) < 0.5
    columns = ("brier_multiclass", "nll", "margin", "entropy", "evidence_coverage", "n_visual")
    return Sample(
        confidence,
        correct,
        cluster,
        np.ones((n // 4, 1)) if weights is None else weights,
        columns={key: rng.uniform(size=n) for key in (*columns, "tokens_per_layer", "yes_rate")},
        groups={"yes": yes, "no": ~yes},
        folds=TwoFolds(table, slopes(table, label), fold, np.ones((2, 1))),
    )


def test_the_catalogue_has_every_metric_that_is_computed_and_no_other():
    sample = sample_of()
    assert set(compute_all(sample, sample)) | BY_OTHER_STAGES == set(CATALOGUE)
    assert not set(METRICS) & set(COSTLY)


def test_every_metric_is_computed_by_what_its_entry_names():
    sample = sample_of()
    values = compute_all(sample, sample)
    for key, metric in CATALOGUE.items():
        if key in BY_OTHER_STAGES:
            assert metric.compute(sample) is None
        else:
            np.testing.assert_array_equal(metric.compute(sample), values[key])


@pytest.mark.parametrize(
    "key", [key for key, metric in CATALOGUE.items() if metric.function and key not in OF_LOGITS]
)
def test_the_public_function_computes_the_studys_number(key):
    sample = sample_of(seed=1)
    expected = CATALOGUE[key].compute(sample)[0]
    value = CATALOGUE[key].public(sample.confidence, sample.correct)
    assert value == pytest.approx(expected, abs=1e-12)  # summed by cluster there


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
