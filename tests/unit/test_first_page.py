"""The report's first page says what the tables hold, and escapes what data sets hold."""

import pyarrow as pa
import pytest

from helpers import synthetic_results
from helpers.markup import Elements
from helpers.stages import write_first_page
from prunecal.figures import pooling
from prunecal.figures.style import styles
from prunecal.report import first_page_tables, first_page_text, html, trust_tables, trust_text
from prunecal.storage import files


@pytest.fixture(scope="module")
def table():
    measured, compared = synthetic_results.metrics(synthetic_results.study())
    return first_page_text.join(measured, compared, synthetic_results.matched(compared))


@pytest.fixture(scope="module")
def selected():
    return selected_of(*synthetic_results.metrics(synthetic_results.study()))


def selected_of(measured, compared):
    rows = synthetic_results.trust(measured, compared)["selected"]
    looks = styles(measured)
    return rows.assign(series=[looks[strategy].name for strategy in rows["strategy"]])


def test_page_names_model_and_data_before_any_finding(results, tmp_path):
    page = write_first_page(results, tmp_path)
    parsed = Elements(page)
    assert page.index("toy-llava") < page.index("Findings")
    for heading in ("Findings", "Claims", "Data sets", "Limits", "Provenance"):
        assert f"<h2>{heading}</h2>" in page
    assert "torch" in parsed.text  # versions


def test_page_escapes_questions_and_claims(results, tmp_path):
    parsed = Elements(write_first_page(results, tmp_path))
    assert "script" not in parsed.names
    assert "b" not in parsed.names
    assert synthetic_results.HOSTILE in parsed.text
    assert "Saliency <is> worse." in parsed.text


def test_a_question_without_a_subset_or_words_is_shown(tmp_path):
    results = synthetic_results.write(tmp_path)
    path = results / "datasets" / "toy-pope" / "questions.parquet"
    table = files.read_table(path)
    for column in ("subset", "text"):
        blank = pa.array([""] * len(table))
        table = table.set_column(table.column_names.index(column), column, blank)
    files.write_table(path, table, files.read_facts(path))
    page = write_first_page(results, tmp_path).replace("\n", "")
    row = (
        'toy-pope</th><td>240</td><td>24</td><td>24</td><td></td><td class="text"><br>Yes / No</td>'
    )
    assert row in page


def test_l_page_says_when_cells_were_made_by_several_versions(tmp_path):
    results = synthetic_results.write(tmp_path)
    said = "The cells were made by 2 versions of torch: "
    assert said not in write_first_page(results, tmp_path)
    path = min(results.glob("*/*/*/*/provenance.json"))
    note = files.read_json(path)
    versions = note["versions"] | {"torch": "2.0.0"}
    files.write_json(path, note | {"versions": versions})
    page = " ".join(write_first_page(results, tmp_path).split())
    assert f"{said}2.0.0 (1 cell), {note['versions']['torch']} (" in page


def test_page_repeats_byte_for_byte(results, tmp_path):
    assert write_first_page(results, tmp_path) == write_first_page(results, tmp_path)


def test_a_trained_model_is_called_small(tmp_path):
    results = synthetic_results.write(tmp_path)
    warning = "they say nothing about large models"
    assert warning not in " ".join(write_first_page(results, tmp_path).split())
    settings = files.read_json(results / "study.json")
    settings["models"][0].pop("path")
    settings["models"][0]["train"] = {"recipe": "digits"}
    files.write_json(results / "study.json", settings)
    assert warning in " ".join(write_first_page(results, tmp_path).split())


def test_findings_count_what_the_comparisons_say(table, selected):
    for finding, task in zip(
        first_page_text.findings(table, selected), pooling.tasks(table), strict=True
    ):
        sentence = " ".join(finding["sentences"])
        ece = pooling.pruned(pooling.of_task(table, task))
        ece = ece[ece["metric"] == "ece_debiased"]
        higher = sum(row.p_adjusted < 0.05 and row.delta > 0 for row in ece.itertuples(index=False))
        lower = sum(row.p_adjusted < 0.05 and row.delta < 0 for row in ece.itertuples(index=False))
        unclear = len(ece) - higher - lower
        assert f"ECE is higher in {higher}, lower in {lower} and not" in sentence
        assert f"distinguishable in {unclear}." in sentence


def test_marks_follow_direction_and_significance():
    row = {"value": 0.2, "delta": 0.1, "p_adjusted": 0.01}
    number = first_page_tables.number
    assert number(row, "ece") == ("0.200 ▲", "worse", "worse than unpruned by 0.100")
    assert number(row, "accuracy").side == "better"
    assert number(row | {"delta": -0.1}, "accuracy") == (
        "0.200 ▼", "worse", "worse than unpruned by 0.100",
    )  # fmt: skip
    assert number(row | {"p_adjusted": 0.06}, "ece") == ("0.200", "", "")
    assert number(row | {"p_adjusted": float("nan")}, "ece") == ("0.200", "", "")
    assert number(None, "ece") == ("", "", "")


def test_table_has_a_row_per_strategy_and_columns_per_budget(table):
    task = pooling.tasks(table)[0]
    shown = first_page_tables.cells_table(pooling.of_task(table, task), task)
    assert len(shown["rows"]) == 13
    assert {len(numbers) for _, numbers in shown["rows"]} == {3 * len(first_page_tables.METRICS)}
    assert len(shown["heads"]) == 3
    here = pooling.of_task(table, task).assign(share=table["budget"] / 36)
    varied = first_page_tables.cells_table(here, task, vary=True)
    assert varied["heads"][0] == "4 tokens (11.1 %)"
    assert (
        varied["caption"]
        == shown["caption"] + ", the mean over images, which have different numbers"
    )


def test_claims_are_counted_by_verdict(tmp_path):
    results = synthetic_results.write(tmp_path)
    text = Elements(write_first_page(results, tmp_path)).text
    assert "3 claims: 1 supported, 1 contradicted, 1 not tested." in text
    assert "toy-pope, toy-llava: 1 contradicted" in text
    files.write_json(results / "claims.json", [])
    assert "The study states no claims." in Elements(write_first_page(results, tmp_path)).text


def test_a_study_without_pruning_is_summarised(selected):
    settings = synthetic_results.study(["full"], [4])
    measured, _ = synthetic_results.metrics(settings)
    compared = synthetic_results.metrics(synthetic_results.study())[1].iloc[:0]
    table = first_page_text.join(measured, compared, synthetic_results.matched(compared))
    task = pooling.tasks(table)[0]
    assert first_page_text.findings(table, selected)[0]["sentences"] == []
    shown = first_page_tables.cells_table(pooling.of_task(table, task), task)
    assert shown["heads"] == ["all 36 tokens"]
    assert [name for name, _ in shown["rows"]] == ["Unpruned"]


def test_few_images_are_said_to_tell_nothing(selected):
    measured, compared = synthetic_results.metrics(synthetic_results.study())
    few = measured.assign(n_images=19)
    untested = compared.assign(n_images=19, p=float("nan"), p_adjusted=float("nan"))
    matched = synthetic_results.matched(compared)
    joined = first_page_text.join(few, untested, matched)
    for finding in first_page_text.findings(joined, selected):
        (sentence,) = finding["sentences"]
        assert sentence.startswith("19 images are too few to tell a difference from chance")


def test_a_selected_minimum_is_called_one_and_has_a_corrected_interval(table, selected):
    ends = selected[selected["metric"] == "ece_debiased"].iloc[0]
    words = f"[{ends['ci_low']:.3f}, {ends['ci_high']:.3f}] (selected as the best of 9"
    sentences = first_page_text.findings(table, selected)[0]["sentences"]
    assert any(words in sentence for sentence in sentences)
    unknown = selected.assign(ci_low=float("nan"), ci_high=float("nan"))
    sentences = first_page_text.findings(table, unknown)[0]["sentences"]
    assert any("(selected as the best of 9), " in sentence for sentence in sentences)
    nothing = " ".join(first_page_text.findings(table, selected.iloc[:0])[0]["sentences"])
    assert "lowest ECE" not in nothing  # no pruned model answers


def test_one_strategy_at_one_budget_is_no_selection_and_no_plural():
    settings = synthetic_results.study(["full", "saliency"], [4])
    measured, compared = synthetic_results.metrics(settings)
    measured.loc[measured["metric"] == "ece_debiased", "value"] = -0.004
    compared["p_adjusted"] = 0.01
    matched = synthetic_results.matched(compared).assign(beyond=0.03, p_adjusted=0.01)
    joined = first_page_text.join(measured, compared, matched)
    finding = first_page_text.findings(joined, selected_of(measured, compared))[0]
    words = " ".join(finding["sentences"])
    assert finding["ece"].startswith("0.000")  # what debiasing takes below 0 is shown as 0
    assert "The one with higher ECE rises more than if accuracy alone had changed" in words
    assert "lowest ECE" not in words
    assert "At the smallest budget" not in words


@pytest.mark.parametrize(
    ("value", "text"), [(-0.0004, "0.000"), (0.0, "0.000"), (-0.02, "−0.020"), (0.0006, "+0.001")]
)
def test_a_difference_that_rounds_to_0_has_no_sign(value, text):
    assert html.signed(value) == text


def test_page_opens_with_published_values(tmp_path):
    value = {"model": "toy-llava", "dataset": "toy-sqa", "metric": "accuracy", "source": "A & B"}
    value |= {"value": 0.1, "tolerance": 0.01}
    results = synthetic_results.write(tmp_path, synthetic_results.study(expect=[value]))
    page = write_first_page(results, tmp_path)
    words = "toy-sqa, toy-llava: unpruned accuracy 0.7"
    assert page.index("<h1>") < page.index(words) < page.index('class="question"')
    assert "published 0.100: differs (tolerance 0.01; A &amp; B)" in page


def test_few_images_cannot_tell_whether_a_model_is_trusted():
    frames = synthetic_results.trust(*synthetic_results.metrics(synthetic_results.study()))
    few = frames | {"trust": frames["trust"].assign(not_tested="1 image, where a test needs 20")}
    task = trust_tables.Trust(*few.values())
    assert trust_text.answer(task) == ["It cannot be told: 1 image, where a test needs 20."]
    assert trust_text.thresholds(task) == []


def test_many_remaining_strategies_are_not_named_one_by_one():
    names = [f"SCOPE {number}" for number in range(trust_text.MANY + 1)]
    assert trust_text.remaining(names, len(names)) == "all 21 strategies"
    assert trust_text.remaining(names, len(names) + 2) == "the other 21 strategies"
    assert trust_text.remaining(names[1:], len(names)) == html.listed(names[1:])
