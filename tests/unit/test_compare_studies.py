"""Two studies side by side: pairs, interactions of known size, and words that say so."""

import csv
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch

from helpers.stages import run
from helpers.tiny_llava import picture, png, questions, tiny_llava
from prunecal import compare_studies, score
from prunecal.core import plugins
from prunecal.core.errors import PrunecalError
from prunecal.engine.session import Session
from prunecal.models.llava import Llava
from prunecal.statistics.interactions import METRICS
from prunecal.storage import files
from prunecal.storage.arrays import write_arrays, write_tensors
from prunecal.strategies import rank

IMAGES, RESAMPLES = 12, 300
CELLS = [("full", "full", {}, 40), ("saliency", "saliency", {}, 10)] + [
    (f"scope-alpha{alpha}", "scope", {"alpha": alpha}, 10) for alpha in (0.0, 0.5, 1.0)
]


def write_study(folder, *, change=0.0, slope=0.0, model="m", dataset="d", shade=1, seed=0):
    """Write a study whose pruned cells differ from the unpruned one by known amounts."""
    shared = np.random.default_rng(7).normal(size=RESAMPLES) * 0.05  # images hard for all cells
    own = np.random.default_rng(8 + shade)
    arrays = {}
    for metric in METRICS:
        values, draws = [], []
        for _, family, parameters, _ in CELLS:
            value = 0.3 + (family != "full") * change + slope * parameters.get("alpha", 0)
            noise = own.normal(size=RESAMPLES) * 0.001
            values.append([value])
            draws.append([value + shared * (1 if family == "full" else 2) + noise])
        arrays[f"value/{metric}"] = np.array(values)
        arrays[f"draws/{metric}"] = np.array(draws, dtype=np.float32)
    names = ("strategy", "family", "parameters", "budget")
    facts = {
        "model": model,
        "dataset": dataset,
        "cells": [dict(zip(names, cell, strict=True)) for cell in CELLS],
        "subsets": [{"name": "all", "n": 24, "n_images": IMAGES}],
        "metrics": list(METRICS),
        "resamples": dict.fromkeys(METRICS, RESAMPLES),
        "bins": 15,
        "seed": seed,
    }
    write_arrays(folder / "scores" / model / f"{dataset}.safetensors", arrays, facts)
    files.write_json(folder / "study.json", {"title": "t"})
    images = [f"image-{number}" for number in range(IMAGES)]
    content = [bytes([shade, number]) for number in range(IMAGES)]
    place = folder / "datasets" / dataset
    files.write_table(
        place / "images.parquet", pa.table({"image_id": images, "bytes": content}), {}
    )
    files.write_table(place / "questions.parquet", pa.table({"image_id": images * 2}), {})
    return folder


def compared(tmp_path, *studies):
    folder = tmp_path / "out"
    command = ["--studies", *map(str, studies), "--folder", str(folder)]
    compare_studies.main(compare_studies.arguments_of(command))
    with (folder / "interactions.csv").open() as file:
        return list(csv.DictReader(file)), (folder / "comparison.html").read_text()


def case(rows, effect, strategy=None, metric="ece_debiased"):
    found = [row for row in rows if (row["effect"], row["metric"]) == (effect, metric)]
    return next(row for row in found if strategy in (None, row["strategy"]))


def test_known_interactions_are_found(tmp_path):
    a = write_study(tmp_path / "a", change=0.05, slope=0.04, model="small")
    b = write_study(tmp_path / "b", change=0.02, slope=0.01, model="large", shade=1)
    rows, page = compared(tmp_path, a, b)
    pruning = case(rows, "pruning", "saliency")
    assert float(pruning["interaction"]) == pytest.approx(0.03)
    assert float(pruning["in_a"]) == pytest.approx(0.05)
    assert float(pruning["share"]) == 0.25
    slope = case(rows, "slope over alpha")
    assert float(slope["interaction"]) == pytest.approx(0.03)
    assert float(slope["p_adjusted"]) < 0.05
    assert "slope over alpha of Debiased ECE differs in 1 of 1 cases" in page
    assert "paired on the same images" in page
    paper = (tmp_path / "out" / "interactions.tex").read_text()
    assert paper.count("slope over alpha & ") == len(METRICS)
    assert r"& In A & In B & A $-$ B & p & p (adjusted)" in paper


def test_equal_effects_do_not_differ(tmp_path):
    a = write_study(tmp_path / "a", change=0.05, slope=0.04)
    b = write_study(tmp_path / "b", change=0.05, slope=0.04, model="other", shade=2)
    rows, page = compared(tmp_path, a, b)
    assert all(float(row["ci_low"]) <= 0 <= float(row["ci_high"]) for row in rows)
    assert "differs in 0 of 4 cases" in page


@pytest.mark.slow
def test_pairing_needs_the_same_images_and_draws(tmp_path):
    """Noise that all cells share cancels where draws are paired, and adds up where not."""
    a = write_study(tmp_path / "a")
    widths = {}
    for name, more in {"same": {}, "images": {"shade": 2}, "draws": {"seed": 1}}.items():
        b = write_study(tmp_path / name, model="other", **more)
        row = case(compared(tmp_path, a, b)[0], "pruning", "saliency")
        assert row["paired"] == ("true" if name == "same" else "false")
        widths[name] = float(row["ci_high"]) - float(row["ci_low"])
    assert widths["same"] < 0.02
    # two independent changes of standard error 0.05 each
    expected = 2 * 1.96 * 0.05 * 2**0.5
    assert widths["images"] == pytest.approx(expected, rel=0.2)
    assert widths["draws"] == pytest.approx(expected, rel=0.2)


def test_one_study_is_compared_across_its_data_sets(tmp_path):
    folder = write_study(tmp_path / "a", dataset="d")
    write_study(folder, dataset="e", shade=3)
    rows, _ = compared(tmp_path, folder, folder)
    assert {(row["a"].split(",")[0], row["b"].split(",")[0]) for row in rows} == {("d", "e")}


def test_studies_without_anything_in_common_are_refused(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    for dataset in ("d1", "d2"):
        write_study(a, model="m1", dataset=dataset)
        write_study(b, model="m2", dataset=dataset.upper())
    with pytest.raises(PrunecalError, match="neither a model nor a data set in common"):
        compared(tmp_path, a, b)


def test_an_unfinished_study_is_named(tmp_path):
    a = write_study(tmp_path / "a")
    with pytest.raises(PrunecalError, match=r"nowhere holds no finished study .* give the folder"):
        compared(tmp_path, a, tmp_path / "nowhere")
    with pytest.raises(PrunecalError, match="1 studies cannot be compared: name two"):
        compared(tmp_path, a)


def test_a_named_studys_data_sets_lie_beside_it(tmp_path):
    a = write_study(tmp_path / "results")
    named = tmp_path / "results" / "named"
    shutil.copytree(a / "scores", named / "scores")
    files.write_json(named / "study.json", {"study": "named"})
    rows, _ = compared(tmp_path, a, named)
    assert {row["paired"] for row in rows} == {"true"}
    assert {float(row["interaction"]) for row in rows} == {0}


def test_names_are_escaped(tmp_path):
    a = write_study(tmp_path / "a", model="<b>m")
    b = write_study(tmp_path / "b", model="<b>n")
    page = compared(tmp_path, a, b)[1]
    assert "&lt;b&gt;m" in page
    assert "<b>" not in page


def test_a_study_whose_folder_holds_dollar_signs_is_drawn(tmp_path):
    a = write_study(tmp_path / "a$x", change=0.05, slope=0.04, model="small")
    b = write_study(tmp_path / "b$\\frac$", change=0.02, slope=0.01, model="large", shade=1)
    rows, page = compared(tmp_path, a, b)
    assert "(b$\\frac$)" in rows[0]["b"]
    assert "(b$\\frac$)" in page


@pytest.fixture(scope="module")
def two_dtypes(tmp_path_factory):
    """Return a study of one tiny model in two dtypes, and its cells' predictions by dtype."""
    folder = tmp_path_factory.mktemp("dtypes")
    tiny_llava(folder / "weights")
    images = [picture(seed) for seed in range(IMAGES)]
    asked = questions(IMAGES)
    files.write_table(
        folder / "datasets" / "d" / "questions.parquet", pa.Table.from_pandas(asked), {}
    )
    content = {"image_id": [f"image{at}" for at in range(IMAGES)], "bytes": [*map(png, images)]}
    files.write_table(folder / "datasets" / "d" / "images.parquet", pa.table(content), {})
    logits = {}
    for dtype in ("float32", "bfloat16"):
        settings = {"visual_tokens": 16, "template": "vicuna_v1", "image": "pad", "dtype": dtype}
        model = Llava(folder / "weights", settings, torch.device("cpu"))
        with torch.inference_mode():
            tokens, saliency = model.encode_pixels(model.pixels(images))
        path = folder / dtype / "features.safetensors"
        arrays = {"features": tokens.contiguous(), "saliency": saliency}
        write_tensors(path, arrays, {"image_id": content["image_id"]})
        session = Session(model, asked, path, batch_tokens=512)
        for family, budget in (("full", 16), ("saliency", 4)):
            order = rank(family, tokens, saliency, budget, image_ids=content["image_id"])
            strategy = plugins.load("strategies", family)
            answers = session.run(
                strategy, strategy.Params(), budget, order.numpy(), np.zeros(IMAGES, np.float32)
            )
            logits[dtype, family] = answers.logits
            table = pa.Table.from_pandas(asked.drop(columns="text"), preserve_index=False)
            for name in ("logits", "n_visual", "coverage"):
                table = table.append_column(name, pa.array(getattr(answers, name)))
            cell = {"model": f"m-{dtype}", "dataset": "d", "strategy": family, "family": family}
            facts = {"cell": cell | {"budget": budget, "parameters": {}}}
            facts |= {"dtype": dtype, "model_digest": "0"}
            files.write_table(folder / dtype / f"{family}.parquet", table, facts)
        run(
            score,
            predictions=sorted((folder / dtype).glob("*.parquet")),
            output=folder / "scores" / f"m-{dtype}" / "d.safetensors",
            resamples=100,
            costly_resamples=2,
        )
    files.write_json(folder / "study.json", {"title": "t"})
    return folder, logits


def test_one_model_in_two_dtypes_shows_what_precision_does(tmp_path, two_dtypes):
    folder, logits = two_dtypes
    rows, page = compared(tmp_path, folder, folder)
    for metric, index in (("accuracy", 1), ("brier", 2)):
        for family in ("full", "saliency"):
            row = case(rows, "precision", family, metric)
            asked = questions(IMAGES)
            measured = {}
            for dtype in ("bfloat16", "float32"):
                odds = [np.exp(one - one.max()) for one in logits[dtype, family]]
                confidence = np.array([1 / one.sum() for one in odds])
                correct = np.array([one.argmax() for one in odds]) == asked["label"]
                measured[dtype] = (0, correct.mean(), ((confidence - correct) ** 2).mean())[index]
            assert float(row["in_a"]) == pytest.approx(measured["bfloat16"], abs=1e-6)
            assert float(row["in_b"]) == pytest.approx(measured["float32"], abs=1e-6)
            assert row["paired"] == "true"
    brier = case(rows, "precision", "full", "brier")
    assert 0 < abs(float(brier["interaction"])) < 0.05
    assert "Precision alone: Debiased ECE differs in " in page
    assert "A: d, m-bfloat16" in page


def test_other_weights_are_not_a_matter_of_precision(tmp_path):
    a = write_study(tmp_path / "a")
    b = write_study(tmp_path / "b", model="other")
    assert {row["effect"] for row in compared(tmp_path, a, b)[0]} == {"pruning", "slope over alpha"}
