"""`prunecal.load` gives a study's numbers as frames and refuses what is missing or damaged."""

import shutil

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

import prunecal
from helpers import synthetic_results
from prunecal.core.errors import PrunecalError
from prunecal.storage import files

SETTINGS = synthetic_results.study(
    ["full", "saliency", {"strategy": "scope", "alpha": [0.0, 1.0]}], [4]
)
CELL = ("toy-llava", "toy-pope", "scope-alpha0", 4)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return synthetic_results.write(tmp_path_factory.mktemp("study"), SETTINGS)


@pytest.fixture
def results(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "results")


def test_frames_hold_what_the_files_hold(results):
    study = prunecal.load(results)
    pd.testing.assert_frame_equal(study.metrics, pd.read_parquet(results / "metrics.parquet"))
    expected = pd.read_parquet(results / "comparisons.parquet")
    pd.testing.assert_frame_equal(study.comparisons, expected)
    claims = files.read_json(results / "claims.json")
    assert study.claims["verdict"].tolist() == [claim["verdict"] for claim in claims]
    assert study.claims["evidence"][0] == claims[0]["evidence"]["words"]


def test_cells_are_each_named_once_with_their_parameters(results):
    cells = prunecal.load(results).cells
    assert len(cells) == 2 * 4
    assert cells["predictions"].is_unique
    one = cells[cells["predictions"].str.contains("toy-pope/scope-alpha0/4/")].iloc[0]
    assert (one.model, one.dataset, one.strategy, one.budget) == CELL
    assert (one.family, one.alpha) == ("scope", 0.0)


def test_predictions_come_with_confidence_and_correctness(results):
    frame = prunecal.load(results).predictions(*CELL)
    probability = softmax(np.stack(frame["logits"]).astype(np.float64), axis=1)
    np.testing.assert_allclose(frame["confidence"], probability.max(axis=1))
    np.testing.assert_array_equal(frame["correct"], probability.argmax(axis=1) == frame["label"])
    np.testing.assert_array_equal(frame["prediction"], probability.argmax(axis=1))


def test_a_named_studys_predictions_lie_beside_its_folder(results):
    named = results / "mine"
    named.mkdir()
    settings = files.read_json(results / "study.json")
    for path in results.glob("*.*"):
        path.rename(named / path.name)
    (named / ".study.json.sha256").unlink(missing_ok=True)
    files.write_json(named / "study.json", settings | {"study": "mine"})
    assert len(prunecal.load(named).predictions(*CELL)) > 0
    with pytest.raises(PrunecalError, match="holds no study of its own but .*/mine; load one of"):
        prunecal.load(results)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (("llava", *CELL[1:]), "has no cell of model 'llava' .did you mean 'toy-llava'"),
        ((*CELL[:2], "scope", 4), "has no cell of strategy 'scope'"),
        ((*CELL[:3], 5), "has no cell of budget 5; known are 4"),
        ((*CELL[:3], "40%"), "has no cell of budget '40%'; known are 4"),
        ((*CELL[:2], "full", 4), "has no cell of budget 4; known are 36"),
    ],
)
def test_a_cell_that_the_study_lacks_is_named(results, cell, message):
    with pytest.raises(PrunecalError, match=message):
        prunecal.load(results).predictions(*cell)


def test_what_is_missing_is_named_with_the_command_that_makes_it(results, tmp_path):
    with pytest.raises(PrunecalError, match="nowhere is not a folder; run `snakemake --cores all`"):
        prunecal.load(tmp_path / "nowhere")
    (results / "comparisons.parquet").unlink()
    with pytest.raises(PrunecalError, match=r"comparisons.parquet is missing; run `snakemake --c"):
        _ = prunecal.load(results).comparisons
    (results / "study.json").unlink()
    with pytest.raises(PrunecalError, match=r"holds no study .study.json is missing.; run `snake"):
        prunecal.load(results)


def test_what_was_altered_is_refused(results):
    path = results / "metrics.parquet"
    frame = pd.read_parquet(path)
    frame.loc[0, "value"] += 0.1
    files.record(path)
    frame.to_parquet(path)
    with pytest.raises(PrunecalError, match="is not as it was written .* run `snakemake --cores 1"):
        _ = prunecal.load(results).metrics


def test_a_file_that_is_no_table_is_refused_even_without_a_checksum(results):
    path = results.joinpath(*CELL[:3], str(CELL[3]), "predictions.parquet")
    path.write_bytes(b"half")
    files.checksum_file(path).unlink(missing_ok=True)
    with pytest.raises(PrunecalError, match="cannot be read as parquet"):
        prunecal.load(results).predictions(*CELL)
