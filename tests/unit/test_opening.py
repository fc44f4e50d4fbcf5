"""A study whose unpruned model is at chance, or whose pruned model is silent, says so first."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from helpers import synthetic_results
from helpers.stages import run
from helpers.synthetic_results import MODEL
from prunecal import compare, score
from prunecal.figures import budget, labels, pooling, style
from prunecal.report import first_page_tables, opening, readouts, trust_text
from prunecal.report.tables import datasets_table
from prunecal.report.trust_tables import Trust
from prunecal.statistics.baselines import Baselines, at_chance, baselines
from prunecal.statistics.claim_grammar import Claim
from prunecal.statistics.claim_tests import evaluate
from prunecal.statistics.kept_thresholds import threshold_rows
from prunecal.statistics.predictions import read_cells
from prunecal.statistics.scores import Scores
from prunecal.statistics.selection import selected_rows
from prunecal.statistics.task import Task
from prunecal.statistics.trust import trust_rows
from prunecal.storage import files
from prunecal.study.cells import load_study

IMAGES, EACH = 60, 6
N = IMAGES * EACH
TOKENS = {"Yes": 3, "No": 4}
SILENT = ("fastv-layer2", 4)


def predictions(cell, *, looks):
    """Return a cell's predictions: answers by what is seen or by chance, FastV's not at all."""
    rng = np.random.default_rng([cell.budget, len(cell.strategy), looks])
    label = np.random.default_rng(0).integers(0, 2, N)
    certainty = np.abs(rng.normal(1.5, 1, N))
    right = rng.uniform(size=N) < (1 / (1 + np.exp(-certainty)) if looks else 0.5)
    answer = np.where(right, label, 1 - label)
    logits = np.zeros((N, 2))
    logits[np.arange(N), answer] = certainty
    says = (cell.strategy, cell.budget) != SILENT
    mass = 0.99 if says else 0.03
    columns = {
        "question_id": [f"q{row}" for row in range(N)],
        "image_id": [f"image{row // EACH}" for row in range(N)],
        "subset": ["one"] * N,
        "options": [["Yes", "No"]] * N,
        "label": pa.array(label, pa.int8()),
    }
    recorded = {
        "logits": pa.array(logits.tolist(), pa.list_(pa.float32())),
        "log_normaliser": pa.array(np.logaddexp(*logits.T) - np.log(mass), pa.float32()),
        "top_token": pa.array(np.where(says, 3 + answer, 9), pa.int32()),
        "n_visual": pa.array([cell.budget] * N, pa.int32()),
        "coverage": pa.array([0.5] * N, pa.float32()),
    }
    return pa.table(columns), pa.table(columns | recorded)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return a study of two data sets: one that the model sees, one that it does not."""
    folder = tmp_path_factory.mktemp("opening")
    settings = synthetic_results.study(["full", "saliency", "fastv"], [4, 8])
    settings["datasets"] = [{"name": name, "loader": "digits-pope"} for name in ("seen", "blind")]
    for name in ("seen", "blind"):
        for cell in synthetic_results.all_cells(settings):
            asked, predicted = predictions(cell, looks=name == "seen")
            facts = synthetic_results.cell_facts(cell, name) | {"option_tokens": TOKENS}
            path = folder / MODEL / name / cell.strategy / str(cell.budget) / "predictions.parquet"
            files.write_table(path, predicted, facts)
        asked = asked.append_column("text", pa.array([f"Is there {row}?" for row in range(N)]))
        files.write_table(folder / "datasets" / name / "questions.parquet", asked, {})
        run(
            score,
            predictions=sorted((folder / MODEL / name).glob("*/*/predictions.parquet")),
            output=folder / "scores" / MODEL / f"{name}.safetensors",
            resamples=200,
            costly_resamples=5,
        )
    run(compare, scores=sorted(folder.glob("scores/*/*.safetensors")), folder=folder)
    return folder


def judged(finished, name, family, metric="ece_debiased", expect="above 0.01"):
    condition = {"difference": metric, "of": {"family": family}, "to": {"family": "full"}}
    claim = Claim(id="X", statement="x", conditions=[condition | {"expect": expect}])
    return evaluate(claim, [Scores(finished / "scores" / MODEL / f"{name}.safetensors")])


def test_nothing_is_claimed_of_a_model_at_chance(finished):
    found = judged(finished, "blind", "saliency")
    assert found["verdict"] == "not tested"
    assert "the unpruned model is at chance: accuracy 0." in found["evidence"]["words"][0]
    assert judged(finished, "seen", "saliency")["verdict"] != "not tested"


def test_a_model_at_chance_is_not_asked_whether_it_can_be_trusted_when_pruned(finished):
    cells = read_cells(sorted((finished / MODEL / "blind").glob("*/*/predictions.parquet")))
    scores = Scores(finished / "scores" / MODEL / "blind.safetensors")
    strategies, rows = trust_rows(Task(scores, cells, {"accuracy": 0.9, "ece": 0.9}), 0.95)
    assert {row["verdict"] for row in rows} == {"cannot be told"}
    told = trust_text.answer(Trust(*map(pd.DataFrame, (strategies, rows, [], []))))
    (reason,) = {row["not_tested"] for row in strategies}
    assert reason.startswith("the unpruned model is at chance: accuracy 0.")
    assert told == [f"It cannot be told: {reason}."]


def test_option_mass_and_answer_rate_are_drawn_against_the_budget(finished):
    metrics = pooling.read(finished / "metrics.parquet")
    looks = style.styles(metrics)
    for metric, least in (("option_mass", 0.03), ("answer_rate", 0.0)):
        curves = pooling.pool_seeds(pooling.headline(metrics, [metric]), looks)
        panel = budget.draw(curves, looks, metric).axes[0]
        (line,) = (line for line in panel.lines if line.get_label() == "FastV")
        np.testing.assert_allclose(line.get_ydata(), [least, 0.99 if least else 1.0], atol=1e-5)
    (words,) = budget.draw(curves[:0], looks, "option_mass").axes[0].texts
    assert words.get_text() == "Option mass: no cell of this study recorded it."


def test_the_page_opens_with_the_model_at_chance_alone(finished):
    metrics = pooling.read(finished / "metrics.parquet")
    tables = datasets_table(sorted(finished.glob("datasets/*/questions.parquet")))
    (sentence,) = opening.warnings(metrics, tables)
    assert sentence.startswith(f"blind, {MODEL}: the unpruned model is at chance")


def test_the_baselines_are_counted():
    options = [["Yes", "No"], ["Yes", "No"], ["A", "B", "C", "D"], ["No", "Yes"]]
    base = baselines(options, [0, 1, 2, 1])
    assert base == Baselines((0.5 * 3 + 0.25) / 4, 2 / 4, "Yes")
    assert baselines([["Yes", "No"]] * 3, [0, 0, 0]).constant == 0  # tells nothing
    assert baselines([["two", "another answer"]] * 3, [0, 0, 0]).chance == 0.5
    assert baselines([["two", "another answer"]] * 3, [0, 0, 0], short=True).chance == 0


@pytest.mark.parametrize(
    ("low", "chance", "constant", "fault"),
    [
        (0.51, 0.5, 0.4, False),
        (0.49, 0.5, 0.4, True),
        (0.60, 0.5, 0.62, True),
        (0.63, 0.5, 0.62, False),
        (float("nan"), 0.5, 0.5, True),  # one image: no interval
    ],
)
def test_an_interval_that_reaches_a_baseline_is_at_chance(low, chance, constant, fault):
    words = at_chance(0.7, (low, 0.8), Baselines(chance, constant, "Yes"))
    assert bool(words) == fault


def test_no_verdict_rests_on_a_cell_that_stops_answering(finished):
    options = judged(finished, "seen", "fastv", "accuracy", "above -1")
    assert options["verdict"] == "inconclusive"
    assert "answers 0 % of the questions" in options["evidence"]["words"][0]
    names = labels.names_of(pooling.read(finished / "metrics.parquet"))
    (_, (case, *_)), *_ = first_page_tables.claim_rows([options], names)[0]["cases"]
    assert case["doubt"].startswith("FastV at 4 tokens answers 0 % of the questions")
    assert judged(finished, "seen", "saliency", "accuracy", "above -1")["verdict"] == "supported"


def test_a_verdict_is_given_under_every_readout_that_was_recorded(finished):
    found = judged(finished, "seen", "fastv", expect="above 0.3")
    assert set(found["evidence"]["readouts"]) == {"vocabulary"}
    assert found["evidence"]["readouts"]["vocabulary"] in ("contradicted", "inconclusive")
    some = Claim(
        id="X",
        statement="x",
        conditions=[
            {
                "difference": "ece_debiased",
                "of": {"family": "fastv", "budget": 4},
                "to": {"family": "full"},
                "expect": "above 0.3",
            }
        ],
    )
    scores = Scores(finished / "scores" / MODEL / "seen.safetensors")
    found = evaluate(some, [scores])
    assert found["verdict"] != "supported"
    assert found["evidence"]["readouts"] == {"vocabulary": "supported"}


def test_the_page_says_how_option_mass_moves_and_who_stops_answering(finished):
    metrics, changes = (
        pooling.read(finished / f"{name}.parquet") for name in ("metrics", "comparisons")
    )
    first, _ = readouts.findings(metrics, changes, [])
    words = " ".join(first["sentences"])
    assert "gives 99.0 % of the probability to the options and answers 100.0 %" in words
    assert "at 4 tokens (least 3.0 %, FastV)" in words
    assert "stop answering with an option: FastV at 4 tokens (0 %)" in words
    assert "Read over the vocabulary, the change of ECE is judged as over the options in" in words
    for mass, shown in ((0.995, "99.5 %"), (0.99966, "99.97 %"), (1.0, "100.0 %")):
        high = metrics.assign(value=metrics["value"].mask(metrics["metric"] == "option_mass", mass))
        (_, still, *_), _ = (one["sentences"] for one in readouts.findings(high, changes, []))
        assert still.startswith(
            f"Option mass of the pruned models is at every budget at least {shown} ("
        )
    table = pooling.pool_seeds(pooling.headline(metrics, ["ece_debiased"]))
    marked = readouts.marked(table, metrics)
    silent = marked.loc[marked["silent"], ["series", "budget"]].drop_duplicates()
    assert silent.to_numpy().tolist() == [["FastV", 4]]


def test_a_cell_that_stops_answering_is_neither_trusted_nor_selected(finished):
    cells = read_cells(sorted((finished / MODEL / "seen").glob("*/*/predictions.parquet")))
    scores = Scores(finished / "scores" / MODEL / "seen.safetensors")
    task = Task(scores, cells, {"accuracy": 0.9, "ece": 0.9})
    _, rows = trust_rows(task, 0.95)
    verdicts = {(row["strategy"], row["budget"]): row["verdict"] for row in rows}
    assert verdicts.pop(SILENT) == "cannot be told"
    assert set(verdicts.values()) == {"no worse"}
    assert [row["among"] for row in selected_rows(task, 0.95)] == [3, 1]
    rows = threshold_rows(task, 0.95)
    assert [(row["strategy"], row["budget"]) for row in rows if row["silent"]] == [SILENT]


def test_published_values_are_set_beside_the_measured_ones(finished):
    metrics = pooling.read(finished / "metrics.parquet")
    full = metrics[(metrics["family"] == "full") & (metrics["subset"] == "all")]
    row = full[(full["dataset"] == "seen") & (full["metric"] == "accuracy")]
    accuracy = row["value"].iloc[0]
    entry = {"model": MODEL, "dataset": "seen", "metric": "accuracy", "source": "a paper"}
    settings = synthetic_results.study() | {
        "datasets": [{"name": "seen", "loader": "digits-pope"}],
        "expect": [
            entry | {"value": round(accuracy + 0.01, 6), "tolerance": 0.0101},
            entry | {"value": round(accuracy + 0.02, 6), "tolerance": 0.01},
            entry | {"metric": "nll", "subset": "none", "value": 1.0, "tolerance": 0.1},
        ],
    }
    agrees, differs, absent = opening.expected(load_study(settings).expect, metrics)
    assert agrees.startswith(
        f"seen, {MODEL}: unpruned accuracy {accuracy:.3f}, published {accuracy + 0.01:.3f}: agrees"
    )
    assert "a paper" in agrees
    assert ": differs" in differs
    assert "unpruned NLL is not measured, published 1.000" in absent
