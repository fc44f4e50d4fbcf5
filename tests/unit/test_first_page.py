"""The report's first page says what the tables hold, and escapes what data sets hold."""

import pyarrow as pa
import pytest

from helpers import synthetic_results
from helpers.markup import Elements
from helpers.stages import write_first_page
from prunecal.figures import pooling
from prunecal.report import first_page_tables, first_page_text
from prunecal.storage import files
from prunecal.study.cells import load_study


@pytest.fixture(scope="module")
def table():
    measured, compared = synthetic_results.metrics(synthetic_results.study())
    return first_page_text.together(measured, compared, synthetic_results.matched(compared))


def test_page_names_model_and_data_before_any_finding(results, tmp_path):
    page = write_first_page(results, tmp_path)
    parsed = Elements(page)
    assert page.index("toy-llava") < page.index("What was found")
    for heading in ("What was found", "The claims, tested", "Limits", "Provenance"):
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
    row = (
        'toy-pope</th><td>240</td><td>12</td><td>12</td><td></td><td class="text"><br>Yes / No</td>'
    )
    assert row in write_first_page(results, tmp_path)


def test_page_repeats_byte_for_byte(results, tmp_path):
    assert write_first_page(results, tmp_path) == write_first_page(results, tmp_path)


def test_a_trained_model_is_called_small():
    settings = synthetic_results.study()
    plain = first_page_text.scope(load_study(settings))
    settings["models"][0].pop("path")
    settings["models"][0]["train"] = {"recipe": "digits"}
    trained = first_page_text.scope(load_study(settings))
    assert "nothing about large models" in trained
    assert "nothing about large models" not in plain


def test_findings_count_what_the_comparisons_say(table):
    for sentence, task in zip(first_page_text.findings(table), pooling.tasks(table), strict=True):
        ece = pooling.pruned(pooling.of_task(table, task))
        ece = ece[ece["metric"] == "ece"]
        higher = sum(row.p_holm < 0.05 and row.delta > 0 for row in ece.itertuples(index=False))
        lower = sum(row.p_holm < 0.05 and row.delta < 0 for row in ece.itertuples(index=False))
        unclear = len(ece) - higher - lower
        assert f"ECE is higher in {higher}, lower in {lower} and not" in sentence
        assert f"distinguishable in {unclear}." in sentence
        assert f"{ece['value'].min():.3f}" in sentence


def test_marks_follow_direction_and_significance():
    row = {"value": 0.2, "delta": 0.1, "p_holm": 0.01}
    assert 'class="worse"' in first_page_tables._cell(row, "ece")
    assert "▲" in first_page_tables._cell(row, "ece")
    assert 'class="better"' in first_page_tables._cell(row, "accuracy")
    assert "▼" in first_page_tables._cell(row | {"delta": -0.1}, "accuracy")
    assert first_page_tables._cell(row | {"p_holm": 0.06}, "ece") == "<td>0.200</td>"
    assert first_page_tables._cell(row | {"p_holm": float("nan")}, "ece") == "<td>0.200</td>"
    assert first_page_tables._cell(None, "ece") == "<td></td>"


def test_table_has_a_row_per_strategy_and_columns_per_budget(table):
    task = pooling.tasks(table)[0]
    parsed = Elements(first_page_tables.cells_table(pooling.of_task(table, task), task))
    assert parsed.names.count("tr") == 2 + 13
    assert parsed.names.count("td") == 1 + 13 * 3 * len(first_page_tables.METRICS)


def test_claims_are_counted_by_verdict(results):
    claims = files.read_json(results / "claims.json")
    text = Elements(first_page_tables.claims_table(claims)).text
    assert "3 claims: 1 supported, 1 contradicted, 1 not tested." in text
    assert "toy-pope, toy-llava: 1 contradicted" in text
    assert Elements(first_page_tables.claims_table([])).text == "The study states no claims."


def test_a_study_without_pruning_is_summarised():
    settings = synthetic_results.study(["full"], [4])
    measured, _ = synthetic_results.metrics(settings)
    compared = synthetic_results.metrics(synthetic_results.study())[1].iloc[:0]
    table = first_page_text.together(measured, compared, synthetic_results.matched(compared))
    task = pooling.tasks(table)[0]
    assert "No strategy drops tokens here." in first_page_text.findings(table)[0]
    assert "all 36 tokens" in first_page_tables.cells_table(pooling.of_task(table, task), task)
