"""Other readings of confidence, and whether a model answers, against plain loops over the rows."""

import numpy as np
import pyarrow as pa
import pytest

from helpers.synthetic_results import all_cells, answers, cell_facts, study
from prunecal import calibration
from prunecal.core.errors import PrunecalError
from prunecal.statistics.predictions import read_cell
from prunecal.statistics.readouts import readings
from prunecal.statistics.scoring import Resamples, score_cell
from prunecal.storage import files

TOKENS = {"A": 7, "B": 8, "C": 9}


def softmax(row):
    odds = np.exp(row - np.max(row))
    return odds / odds.sum()


def written(folder, dataset="toy-sqa", facts=None, **columns):
    """Write a made-up cell with more columns and return its path."""
    cell = all_cells(study())[0]
    table = answers(cell, dataset, images=6)
    for name, values in columns.items():
        table = table.append_column(name, values)
    path = folder / "predictions.parquet"
    files.write_table(path, table, cell_facts(cell, dataset) | (facts or {}))
    return path


def recorded_columns(rows=60, seed=0, mass=0.5):
    """Make up what a cell of three options records, its option mass around a value."""
    rng = np.random.default_rng(seed)
    table = answers(all_cells(study())[0], "toy-sqa", images=6)["logits"].to_pylist()
    share = np.clip(mass + rng.normal(0, 0.1, rows), 0.05, 0.95)
    normaliser = [
        np.logaddexp.reduce(row) - np.log(one) for row, one in zip(table, share, strict=True)
    ]
    spelled = [list(np.array(row) + rng.uniform(0, 0.05, 3)) for row in table]
    letters = [[*row, rng.normal()] for row in table]
    return {
        "log_normaliser": pa.array(normaliser, pa.float32()),
        "top_token": pa.array(rng.choice([7, 8, 9, 11], rows), pa.int32()),
        "spelling_logits": pa.array(spelled, pa.list_(pa.float32())),
        "letter_logits": pa.array(letters, pa.list_(pa.float32())),
    }


def test_every_reading_equals_a_loop_over_the_rows(tmp_path):
    path = written(tmp_path, facts={"option_tokens": TOKENS}, **recorded_columns())
    cell, rows = read_cell(path), files.read_table(path).to_pylist()
    read = readings(cell)
    for at, row in enumerate(rows):
        logits = np.array(row["logits"])
        over_words = np.exp(logits - row["log_normaliser"])
        assert read["vocabulary"].confidence[at] == pytest.approx(over_words.max())
        assert read["vocabulary"].correct[at] == (logits.argmax() == row["label"])
        spelled = np.exp(np.array(row["spelling_logits"]) - row["log_normaliser"])
        assert read["spellings"].confidence[at] == pytest.approx(spelled.max())
        assert read["spellings"].correct[at] == (spelled.argmax() == row["label"])
        letters = softmax(np.array(row["letter_logits"]))
        assert read["letters"].confidence[at] == pytest.approx(letters.max())
        assert read["letters"].correct[at] == (letters.argmax() == row["label"])
    means = cell.row_means()
    mass = [np.exp(np.array(row["logits"]) - row["log_normaliser"]).sum() for row in rows]
    np.testing.assert_allclose(means["option_mass"], mass, rtol=1e-6)
    np.testing.assert_array_equal(means["answer_rate"], [row["top_token"] != 11 for row in rows])
    assert "answer_rate_spellings" not in means  # no spellings are named


def test_metrics_of_a_reading_are_the_plain_metrics_of_its_confidence(tmp_path):
    cell = read_cell(written(tmp_path, facts={"option_tokens": TOKENS}, **recorded_columns()))
    resamples = Resamples.of(np.array(cell.rows["image_id"]), 5, 5, seed=0)
    (metrics,) = score_cell(cell, {"all": np.arange(60)}, resamples, {}, 15)
    for name, (confidence, correct) in readings(cell).items():
        ece = calibration.expected_calibration_error(confidence, correct)
        assert metrics[f"ece_{name}"][0] == pytest.approx(ece)
        assert metrics[f"aurc_{name}"][0] == pytest.approx(calibration.aurc(confidence, correct))
        over = confidence.mean() - correct.mean()
        assert metrics[f"overconfidence_{name}"][0] == pytest.approx(over)
    assert "accuracy_vocabulary" not in metrics  # the record's


def test_a_model_that_stops_answering_does_not_look_calibrated(tmp_path):
    columns = recorded_columns(mass=0.06)
    columns["top_token"] = pa.array([11] * 60, pa.int32())
    cell = read_cell(written(tmp_path, facts={"option_tokens": TOKENS}, **columns))
    means, read = cell.row_means(), readings(cell)
    assert means["answer_rate"].max() == 0
    assert means["option_mass"].mean() < 0.2
    ece = calibration.expected_calibration_error
    assert ece(*read["vocabulary"]) > cell.correct.mean() - 0.2
    assert ece(*read["vocabulary"]) > ece(cell.confidence, cell.correct)


@pytest.mark.parametrize("null", [False, True])
def test_a_cell_of_another_program_has_the_record_alone(tmp_path, null):
    nothing = dict.fromkeys(recorded_columns(), pa.nulls(60)) if null else {}
    cell = read_cell(written(tmp_path, **nothing))
    assert readings(cell) == {}
    assert not {"option_mass", "answer_rate"} & set(cell.row_means())


def test_rounding_does_not_make_a_probability_above_one(tmp_path):
    table = answers(all_cells(study())[0], "toy-sqa", images=6)["logits"].to_pylist()
    low = [np.logaddexp.reduce(row) - 1e-5 for row in table]
    cell = read_cell(written(tmp_path, log_normaliser=pa.array(low, pa.float32())))
    assert cell.row_means()["option_mass"].max() <= 1
    assert readings(cell)["vocabulary"].confidence.max() <= 1


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("log_normaliser", pa.array([-9.0] * 60, pa.float32())),
        ("log_normaliser", pa.array([np.nan] * 60, pa.float32())),
        ("spelling_logits", pa.array([[0.0, 1.0]] * 60, pa.list_(pa.float32()))),
        ("letter_logits", pa.array([[0.0, 1.0, 2.0]] * 60, pa.list_(pa.float32()))),
    ],
)
def test_what_does_not_fit_the_option_logits_is_refused(tmp_path, name, values):
    with pytest.raises(PrunecalError, match=f"column '{name}' that does not fit its logits"):
        read_cell(written(tmp_path, **{name: values}))
