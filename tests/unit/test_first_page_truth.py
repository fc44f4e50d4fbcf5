"""From predictions of known calibration to the first page: its words must say what is true.

Two strategies are pruned alike. They answer as the unpruned model's twin (calibrated), with its
answers at three times its log-odds (overconfident), with its confidences and fewer right answers
(accuracy), or less often right and less confident (fitting).
"""

import re

import numpy as np
import pyarrow as pa
import pytest
import yaml

from helpers import synthetic_results
from helpers.markup import Elements
from helpers.stages import ask_trust, explain, run, write_first_page
from helpers.synthetic_results import MODEL, TOKENS
from prunecal import claims, compare, score
from prunecal.figures import pooling
from prunecal.figures.style import styles
from prunecal.report import trust_tables, trust_text
from prunecal.storage import files
from prunecal.storage.arrays import write_arrays

TRUTHS = ("calibrated", "overconfident", "accuracy", "fitting")
OVER = "Overconfidence, mean confidence minus accuracy,"
ALONE = "if accuracy alone had changed and every answer had kept its confidence"
IMAGES, PER_IMAGE = 250, 8
N = IMAGES * PER_IMAGE


def drawn(rng, mean=1.5):
    """Return the log-odds of answers and which are right, as often as the log-odds say."""
    certainty = np.abs(rng.normal(loc=mean, size=N))
    return certainty, rng.uniform(size=N) < 1 / (1 + np.exp(-certainty))


def answered(truth, rng, unpruned):
    """Return log-odds and right answers of a pruned model."""
    certainty, right = unpruned
    if truth == "calibrated":
        return drawn(rng)
    if truth == "overconfident":
        return 3 * certainty, right
    if truth == "accuracy":  # lost alike at every confidence
        confidence = 1 / (1 + np.exp(-certainty))
        return certainty, right & (rng.uniform(size=N) > 0.1 / confidence)
    return drawn(rng, mean=0.7)


def table(logits, budget):
    rows = range(N)
    columns = {
        "question_id": [f"q{row}" for row in rows],
        "image_id": [f"image-{row // PER_IMAGE}" for row in rows],
        "subset": ["one"] * N,
        "options": [["Yes", "No"]] * N,
        "label": pa.array([0] * N, pa.int8()),
    }
    asked = pa.table(columns | {"text": [f"Is there {row}?" for row in rows]})
    predicted = columns | {
        "logits": pa.array(logits.tolist(), pa.list_(pa.float32())),
        "n_visual": pa.array([budget] * N, pa.int32()),
        "coverage": pa.array([0.5] * N, pa.float32()),
    }
    return asked, pa.table(predicted)


def expectation(truth, metric):
    """Return the claim that a metric rises under a truth."""
    condition = {"difference": metric, "of": {"family": {"not": "full"}}, "to": {"family": "full"}}
    return {
        "id": f"{metric} {truth}",
        "statement": f"{metric} rises.",
        "dataset": [truth],
        "conditions": [condition | {"expect": "above 0"}],
    }


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return the results of a study with a data set per truth."""
    folder = tmp_path_factory.mktemp("truth")
    settings = synthetic_results.study(["full", "saliency", "fastv"], [4])
    settings["datasets"] = [{"name": truth, "loader": "digits-pope"} for truth in TRUTHS]
    files.write_json(folder / "study.json", settings)
    files.write_json(folder / "models" / MODEL / "manifest.json", {"digest": "0" * 64})
    for seed, truth in enumerate(TRUTHS):
        rng = np.random.default_rng(seed)
        unpruned = drawn(rng)
        place = folder / MODEL / truth
        for cell in synthetic_results.all_cells(settings):
            certainty, right = unpruned
            if cell.family != "full":
                certainty, right = answered(truth, rng, unpruned)
            signed = np.where(right, certainty, -certainty)
            asked, predicted = table(np.stack([signed, np.zeros(N)], axis=1), cell.budget)
            path = place / cell.strategy / str(cell.budget) / "predictions.parquet"
            files.write_table(path, predicted, synthetic_results.cell_facts(cell, truth))
        questions = folder / "datasets" / truth / "questions.parquet"
        files.write_table(questions, asked, {"dataset": truth})
        saliency = rng.random((IMAGES, TOKENS), dtype=np.float32)
        facts = {"image_id": [f"image-{number}" for number in range(IMAGES)]}
        write_arrays(place / "features.safetensors", {"saliency": saliency}, facts)
        run(
            score,
            predictions=sorted(place.glob("*/*/predictions.parquet")),
            questions=questions,
            output=folder / "scores" / MODEL / f"{truth}.safetensors",
            resamples=400,
            costly_resamples=20,
        )
    scores = sorted(folder.glob("scores/*/*.safetensors"))
    run(compare, scores=scores, folder=folder)
    explain(folder, folder / "tables")
    ask_trust(folder, folder / "tables")
    stated = [
        expectation(truth, metric) for truth in TRUTHS for metric in ("ece_debiased", "accuracy")
    ]
    (folder / "claims.yaml").write_text(yaml.safe_dump(stated))
    run(claims, claims=folder / "claims.yaml", scores=scores, output=folder / "claims.json")
    return folder


@pytest.fixture(scope="module")
def page(study):
    """Return the first page."""
    return write_first_page(study, study)


def finding(page, truth, heading="Findings"):
    """Return what the page says of a data set below a heading, as plain text."""
    start = page.index(f"<p><strong>{truth}</strong>", page.index(f"<h2>{heading}</h2>"))
    return Elements(page[start : page.index("</ul>", start) + 5]).text


def verdict(page, truth, metric):
    row = page.index(f'<th scope="row">{metric} {truth}</th>')
    return Elements(page[row : page.index("<details", row)] + "</td>").text


def test_a_calibrated_model_is_told_apart_in_nothing(page):
    said = finding(page, "calibrated")
    nothing = "higher in 0, lower in 0 and not distinguishable in 2."
    assert said.count(nothing) == 3  # ECE, accuracy, overconfidence
    assert ALONE not in said
    assert said.count("not distinguishable from the unpruned model's") == 2
    assert verdict(page, "calibrated", "ece_debiased").endswith("inconclusive")
    assert verdict(page, "calibrated", "accuracy").endswith("inconclusive")


def test_overconfidence_is_named_and_not_blamed_on_accuracy(page):
    said = finding(page, "overconfident")
    assert "ECE is higher in 2, lower in 0 and not distinguishable in 0." in said
    assert "Accuracy is higher in 0, lower in 0 and not distinguishable in 2." in said
    assert f"{OVER} is higher in 2, lower in 0 and not distinguishable in 0." in said
    assert f"Of the 2 with higher ECE, 2 rise more and 0 less than {ALONE}; 0 are not" in said
    assert "above the unpruned model's: " in said
    assert verdict(page, "overconfident", "ece_debiased").endswith("supported")


def test_a_loss_of_accuracy_alone_is_called_so(page):
    said = finding(page, "accuracy")
    assert "ECE is higher in 2, lower in 0 and not distinguishable in 0." in said
    assert "Accuracy is higher in 0, lower in 2 and not distinguishable in 0." in said
    assert f"Of the 2 with higher ECE, 0 rise more and 0 less than {ALONE}; 2 are not" in said
    assert "below the unpruned model's." in said
    assert verdict(page, "accuracy", "accuracy").endswith("contradicted")


def test_confidence_that_falls_with_accuracy_is_no_miscalibration(page):
    said = finding(page, "fitting")
    assert "ECE is higher in 0, lower in 0 and not distinguishable in 2." in said
    assert "Accuracy is higher in 0, lower in 2 and not distinguishable in 0." in said
    assert f"{OVER} is higher in 0, lower in 0 and not distinguishable in 2." in said
    assert ALONE not in said
    assert verdict(page, "fitting", "ece_debiased").endswith("inconclusive")


def test_what_margins_are_too_narrow_for_cannot_be_told(page):
    said = finding(page, "calibrated", "Can it be trusted?")
    assert "No strategy is shown to keep accuracy and calibration at any budget" in said
    assert "Not shown does not mean worse" in said
    assert "Cannot be told at the largest budget: Saliency and FastV." in said
    assert "Worse" not in said


@pytest.mark.parametrize("truth", ["overconfident", "accuracy", "fitting"])
def test_a_model_that_is_worse_than_its_margin_is_called_so(page, truth):
    said = finding(page, truth, "Can it be trusted?")
    assert "Worse by more than a margin already at the largest budget: Saliency and FastV." in said
    assert "down to" not in said


def test_wider_margins_show_the_twin_no_worse_and_the_overconfident_one_after_refitting(
    study, tmp_path
):
    ask_trust(study, tmp_path, margin=0.08)
    looks = styles(pooling.read(study / "metrics.parquet"))
    tables = trust_tables.read([tmp_path / f"{name}.csv" for name in trust_tables.FILES], looks)
    said = {truth: " ".join(trust_text.answer(tables.of_task((MODEL, truth)))) for truth in TRUTHS}
    kept = "2 of 2 strategies are shown to keep accuracy and calibration down to 4 of 36 tokens"
    assert said["calibrated"].startswith(f"{kept}, the smallest of the study: Saliency and FastV.")
    refitted = "further down: by Saliency down to 4 tokens and FastV down to 4 tokens."
    assert said["overconfident"].startswith("No strategy")
    assert said["overconfident"].endswith(refitted)
    for truth in ("accuracy", "fitting"):  # a temperature brings no right answer back
        assert "No strategy" in said[truth]
        assert "refitted" not in said[truth]
        assert "Down to" not in said[truth]


def test_marks_of_the_table_agree_with_the_words(page):
    tables = [text.split("</table>")[0] for text in page.split("<table><caption>")[1:]]
    marks = {text.split(",")[0]: tuple(map(text.count, ('"worse"', '"better"'))) for text in tables}
    assert marks["calibrated"] == (0, 0)
    assert marks["overconfident"] == (2, 0)  # ECE of two strategies
    assert marks["accuracy"] == (4, 0)  # and accuracy
    assert marks["fitting"] == (2, 0)


def test_a_difference_that_is_not_found_may_be_too_small_to_find(page):
    assert "Not distinguishable does not mean equal." in page
    shown = re.search(r"can detect is ([\d.]+) on accuracy, toy-llava", page)
    assert 0.002 < float(shown[1]) < 0.05


def test_numbers_name_their_files(page):
    text = Elements(page).text
    for name in (
        "metrics.parquet",
        "comparisons.parquet",
        "matched.csv",
        "detectable.csv",
        "claims.json",
        "thresholds.csv",
    ):
        assert name in text
