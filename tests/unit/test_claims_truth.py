"""From predictions of known calibration to verdicts: the words must say what is true."""

import numpy as np
import pyarrow as pa
import pytest

from prunecal import score
from prunecal.statistics import claim_grammar
from prunecal.statistics.claim_grammar import Claim
from prunecal.statistics.claim_tests import evaluate
from prunecal.statistics.scores import Scores
from prunecal.storage import files

IMAGES, PER_IMAGE = 250, 8
N = IMAGES * PER_IMAGE


def logits_of(rng, accuracy_shift=0.0, scale=1.0):
    """Log-odds for a label of 0 whose confidence is calibrated, then scaled by `scale`."""
    certainty = np.abs(rng.normal(loc=1.5 + accuracy_shift, size=N))
    right = rng.uniform(size=N) < 1 / (1 + np.exp(-certainty))
    return np.where(right, certainty, -certainty) * scale


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("truth")
    rng = np.random.default_rng(0)
    cells = {
        "full": logits_of(rng),
        "calibrated": logits_of(rng),
        "overconfident": logits_of(rng, scale=3.0),
        "worse-but-calibrated": logits_of(rng, accuracy_shift=-0.8),
    }
    paths = []
    for name, gap in cells.items():
        table = pa.table(
            {
                "question_id": [f"q{i}" for i in range(N)],
                "image_id": [f"i{i // PER_IMAGE}" for i in range(N)],
                "subset": ["one"] * N,
                "options": [["Yes", "No"]] * N,
                "label": pa.array([0] * N, pa.int8()),
                "logits": pa.array([[g, 0.0] for g in gap], pa.list_(pa.float32())),
                "n_visual": pa.array([4] * N, pa.int32()),
                "coverage": pa.array([0.5] * N, pa.float32()),
            }
        )
        cell = {"model": "m", "dataset": "d", "strategy": name, "family": name}
        paths.append(folder / f"{name}.parquet")
        files.write_table(paths[-1], table, {"cell": cell | {"parameters": {}, "budget": 4}})
    output = folder / "score.safetensors"
    command = ["--predictions", *map(str, paths), "--output", str(output), "--resamples", "400"]
    score.main(score.arguments_of(command))
    return Scores(output)


def verdict(scores, metric, family, expect):
    condition = {"difference": metric, "of": {"family": family}, "to": {"family": "full"}}
    claim = Claim(id="X", statement="x", conditions=[condition | {"expect": expect}])
    return evaluate(claim, [scores])["verdict"]


def test_overconfidence_is_found_and_accuracy_left_alone(scores):
    assert verdict(scores, "ece", "overconfident", "above 0.02") == "supported"
    assert verdict(scores, "overconfidence", "overconfident", "above 0.02") == "supported"
    assert verdict(scores, "accuracy", "overconfident", "within 0.04") == "supported"


def test_one_temperature_undoes_overconfidence(scores):
    assert verdict(scores, "ece", "overconfident", "within 0.03") == "contradicted"
    assert verdict(scores, "ece_temperature", "overconfident", "within 0.03") == "supported"
    # the unpruned model's temperature is near 1 and mends nothing
    carried = verdict(scores, "ece_temperature_transfer", "overconfident", "above 0.02")
    assert carried == "supported"


def test_lower_accuracy_with_fitting_confidence_is_no_miscalibration(scores):
    assert verdict(scores, "accuracy", "worse-but-calibrated", "below -0.02") == "supported"
    assert verdict(scores, "ece", "worse-but-calibrated", "within 0.03") == "supported"
    assert verdict(scores, "ece", "worse-but-calibrated", "above 0.02") != "supported"


def test_equal_cells_are_told_apart_in_nothing(scores):
    for metric in ("ece", "accuracy", "brier", "aurc", "smece"):
        for expect in ("below 0", "above 0"):
            assert verdict(scores, metric, "calibrated", expect) == "inconclusive"


def test_claims_module_lists_what_a_condition_can_measure():
    assert all(kind in claim_grammar.__doc__ for kind in claim_grammar.KINDS)
