import json

import pandas as pd
import pytest

from prunecal.benchmark import __main__ as benchmark
from prunecal.benchmark import methods, workloads
from prunecal.benchmark.baselines import needed_flops
from prunecal.figures import speed

TINY = workloads.Shape(32, 3, 4, 32, 64, 3, 4, vocabulary=1000)

pytestmark = pytest.mark.slow  # a model of the benchmark's shape, run one question at a time


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmark") / "benchmark.json"
    patch = pytest.MonkeyPatch()
    patch.setitem(workloads.SHAPES, "mid", TINY)
    matmul, rates = benchmark.matmul, []

    def once(*given):
        rates[:] = rates or [matmul(*given)]
        return rates[0]

    patch.setattr(benchmark, "matmul", once)  # it takes longer than this model
    words = ["--rounds", "1", "--single", "2", "--images", "2", "--device", "cpu"]
    benchmark.main(benchmark.arguments([*words, "--out", str(out)]))
    patch.undo()
    return out


def test_all_ways_give_the_same_logits(measured):
    rows = json.loads(measured.read_text())["rows"]
    assert {(row["load"], row["budget"]) for row in rows} == {
        (load, budget) for load in workloads.LOADS for budget in (576, 64)
    }
    for row in rows:
        assert row["max_logit_difference"] < 1e-4
        assert row["same_predictions"] == 1
        assert row["padding"] < 0.1


def test_each_method_in_the_engine_equals_one_question_at_a_time(tmp_path, monkeypatch):
    small = workloads.Shape(32, 4, 2, 96, 64, 4, 6, vocabulary=1000, visual_tokens=12)
    monkeypatch.setitem(workloads.SHAPES, "qwen", small)
    monkeypatch.setattr(workloads.RandomQwen, "GRID", (3, 4))
    monkeypatch.setitem(methods.LOADS, "qwen", 5)
    monkeypatch.setitem(workloads.SHAPES, "mid", TINY)
    monkeypatch.setattr(benchmark, "matmul", lambda *_: 1e9)  # which takes longer than the methods
    out = tmp_path / "methods.json"
    words = ["--rounds", "1", "--single", "1", "--images", "1", "--device", "cpu"]
    for shape, names in (
        ("mid", ["fastv", "visionzip", "trim", "random"]),
        ("qwen", ["full", "saliency"]),
    ):
        methods.main(
            methods.arguments([*words, "--shapes", shape, "--methods", *names, "--out", str(out)])
        )
        rows = json.loads(out.read_text())["rows"]
        assert [row["method"] for row in rows] == names
        for row in rows:
            assert row["max_logit_difference"] < 1e-5
            one, engine = row["one_at_a_time_s_per_question"], row["engine_s_per_question"]
            assert row["ratio_features_cached"] == pytest.approx(one / engine)
            assert row["distinct"] < row["rows"]  # the engine answers no question twice


def test_the_machine_and_the_command_are_recorded(measured):
    about = json.loads(measured.read_text())["about"]
    assert about["device"] == "cpu"
    assert about["dtype"] == "float32"
    assert about["command"].startswith("python -m prunecal.benchmark")
    assert "torch" in about["versions"]


def test_rates_are_questions_over_seconds(measured):
    rows = pd.DataFrame(json.loads(measured.read_text())["rows"])
    rates = speed.rates(rows).set_index(["load", "budget", "way"])["rate"]
    first = rows.iloc[0]
    place = (first["load"], first["budget"])
    assert rates[(*place, "engine")] == pytest.approx(1 / first["engine_s_per_question"])
    both = first["engine_s_per_question"] + first["encode_s_per_question"]
    assert rates[(*place, "engine_and_encode")] == pytest.approx(1 / both)


def test_pope_like_asks_18_questions_an_image_of_which_10_or_11_are_distinct():
    asked = workloads.pope_like(8).groupby("image_id")["text"]
    assert set(asked.size()) == {18}
    assert set(asked.nunique()) == {10, 11}


def test_needed_flops_of_one_prompt_are_those_of_its_matrix_products():
    shape = {"width": 8, "intermediate": 16, "layers": 1, "key_value": 8}
    # one layer, one token that is also the answer: q, k, v, o, the MLP, attention to itself
    products = 4 * 8 * 8 + 3 * 8 * 16
    assert needed_flops(shape, [(0, 0, [1])]) == 2 * products + 4 * 8
