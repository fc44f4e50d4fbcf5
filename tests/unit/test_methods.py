"""The methods page holds every definition that is used; provenance says what each cell cost."""

import json

import pandas as pd
import pytest
from markupsafe import escape

from helpers import synthetic_results
from helpers.stages import define
from prunecal.calibration.catalogue import CATALOGUE
from prunecal.core import plugins
from prunecal.report import html, methods, provenance
from prunecal.statistics.scores import read_scores
from prunecal.storage import files
from prunecal.strategies import scope
from prunecal.strategies._declarations import declarations
from prunecal.study.cells import load_study

SETTINGS = synthetic_results.study(
    ["full", "saliency", {"strategy": "scope", "alpha": [0.0, 1.0]}], [4]
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    results = synthetic_results.write(tmp_path_factory.mktemp("study"), SETTINGS)
    synthetic_results.write_sources(results)
    return results


def test_every_metric_that_is_scored_has_a_definition(results):
    for scores in read_scores(sorted(results.glob("scores/*/*.safetensors"))):
        assert set(scores.facts["metrics"]) <= set(CATALOGUE)


def test_every_registered_strategy_and_definition_can_be_shown():
    every = plugins.names("strategies")  # but the one for families of images' own resolution
    names = [name for name in every if plugins.load("strategies", name).PRUNES != "before_tower"]
    settings = synthetic_results.study(names, [4])
    tower = {"repo": "someone/clip", "revision": "0" * 40}
    settings["models"] = [model | {"text_tower": tower} for model in settings["models"]]
    study = load_study(settings)
    values = methods.page_values(study, sorted(CATALOGUE))
    page = html.render("methods", title="Methods", **values)
    for name in names:
        assert f"<h3>{plugins.load('strategies', name).LABEL}</h3>" in page
    assert page.count("drops tokens: ") == len(names) - 1  # the unpruned model drops none
    assert "Text tower: " in page
    declared = declarations(plugins.load("strategies", "cdpruner"))
    assert declared["looks at the question"] == declared["one order for all budgets"] == "yes"
    assert "segments of the question in CLIP's space" in declared["is given"]
    places = declarations(plugins.load("strategies", "sparsevlm"))["positions of tokens"]
    assert places == "renumbered without gaps or as in the unpruned prompt, by its settings"
    for metric in CATALOGUE.values():
        assert f"<dt>{escape(metric.label)} <small>" in page
        assert escape(metric.formula) in page


def test_page_holds_the_docstrings_as_they_stand(results, tmp_path):
    page = define(results, tmp_path)
    assert CATALOGUE["ece"].definition in page
    described = scope.Params.model_fields["gap_power"].description
    assert described in page
    assert "Args:" not in page
    assert "0.0, 1.0" in page  # alpha in this study


def test_texts_are_escaped_and_lists_are_lists():
    text = "First `x < y`.\n\n- one <b>\n- two\n  lines\n\nArgs:\n    hidden: yes"
    assert html.prose(text) == (
        "<p>First <code>x &lt; y</code>.</p><ul><li>one &lt;b&gt;</li><li>two lines</li></ul>"
    )
    with pytest.raises(ValueError, match="has no docstring"):
        html.prose(lambda: None)


def test_page_repeats_byte_for_byte(results, tmp_path):
    assert define(results, tmp_path) == define(results, tmp_path)


def test_provenance_has_a_row_per_cell(results, tmp_path):
    define(results, tmp_path)
    page = (tmp_path / "provenance.html").read_text(encoding="utf-8")
    assert page.count("<tr><td>") == 2 * 4
    assert "8 cells, inferred in 12 seconds" in page  # 1.5 each
    assert '<th scope="row">Device</th><td>cpu</td>' in page
    assert "torch " in page
    paths = sorted(results.glob("*/*/*/*/predictions.parquet"))
    rows = provenance.provenance_rows(paths, {})
    assert {row["questions"] for row in rows} == {240}
    assert len({row["predictions_sha256"] for row in rows}) == len(rows)
    assert all(row["predictions_sha256"] in page for row in rows)
    table = pd.read_csv(tmp_path / "provenance.csv")
    assert table["predictions_sha256"].tolist() == [row["predictions_sha256"] for row in rows]
    assert table["seconds"].tolist() == [1.5] * len(rows)
    assert {row["decoder_gflop_per_prompt"] for row in rows} == {None}  # no configuration here


def test_provenance_is_escaped():
    row = dict.fromkeys(("model", "dataset", "strategy", "budget", "seconds", "device"))
    values = provenance.page_values([row | {"model": "<b>m", "device": "<i>d"}])
    page = html.render("provenance", title="Provenance", **values)
    assert "&lt;b&gt;m" in page
    assert "<b>" not in page
    assert "<i>" not in page


def test_flops_count_two_for_each_weight_and_token(tmp_path):
    from transformers import LlamaConfig, LlamaModel

    settings = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 10,
    }
    source = {"path": str(tmp_path)}
    (tmp_path / "config.json").write_text(json.dumps({"text_config": settings}))
    shape = provenance.decoder_shape(source, tmp_path / "manifest.json")
    model = LlamaModel(LlamaConfig(**settings))
    weights = sum(
        parameter.numel() for parameter in model.layers.parameters() if parameter.dim() == 2
    )
    assert provenance.decoder_flops(shape, 7.5) == 2 * weights * 7.5


def test_a_silent_configuration_means_what_transformers_takes_it_for(tmp_path):
    from transformers import LlamaConfig

    assert {key: getattr(LlamaConfig(), key) for key in provenance.LLAMA} == provenance.LLAMA
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "config.json").write_text("{}")
    shape = provenance.decoder_shape({"train": {"recipe": "r"}}, tmp_path / "manifest.json")
    assert shape["layers"] == 32
    assert shape["key_value"] == 4096


def test_another_kind_of_decoder_has_no_count(tmp_path):
    files.write_json(tmp_path / "config.json", {"text_config": {"model_type": "other"}})
    assert provenance.decoder_shape({"path": str(tmp_path)}, tmp_path / "m.json") is None
    assert provenance.decoder_shape({"path": str(tmp_path / "no")}, tmp_path / "m.json") is None
