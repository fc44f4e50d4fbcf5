"""Images with different numbers of visual tokens, through all stages from images to tables."""

import argparse
import io
import json
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image

from helpers import stages, tiny_families
from helpers.tiny_llava import TEXTS, picture, png, tiny_llava
from prunecal import compare, data, encode, infer, rank, score
from prunecal.caching import lineage
from prunecal.core import plugins
from prunecal.core.errors import PrunecalError
from prunecal.datasets import digits_pope, digits_shapes
from prunecal.digits import canvas
from prunecal.digits.polls import CATEGORIES
from prunecal.engine.merged import Merged
from prunecal.engine.session import Session
from prunecal.models import load_model
from prunecal.models.llava import Llava
from prunecal.sources import model_folder
from prunecal.statistics.results import Results
from prunecal.storage import files
from prunecal.storage.arrays import open_arrays, write_arrays, write_tensors
from prunecal.storage.per_image import PerImage, together
from prunecal.storage.spooled import Spool
from prunecal.study.budgets import folder, kept_tokens, of_folder, share_text
from prunecal.study.cells import cells, load_study
from prunecal.study.strategy_settings import TEXT_SIGNALS

STUDY = {
    "title": "Two sizes of pictures",
    "models": [
        {
            "name": "tiny",
            "family": "qwen2-5-vl",
            "template": "qwen_vl-lmms",
            "min_pixels": 64,
            "max_pixels": 12_800,
            "path": "tiny",
        }
    ],
    "datasets": [{"name": "polls", "loader": "digits-pope", "images": 4, "seed": 1}],
    "strategies": [
        "full",
        "blind",
        "saliency",
        "uniform",
        "vispruner",
        {"strategy": "fastv", "layer": 1},
    ],
    "budgets": ["50%", "25.0%", 2],
}


MATCHED = {
    "models": [{**STUDY["models"][0], "layers": tiny_families.TEXT["num_hidden_layers"]}],
    "strategies": ["full", "downsample", {"strategy": "fastv", "layer": 1}],
    "budgets": {"tokens": ["50%"], "match": "mean_tokens"},
}


@pytest.mark.slow
def test_a_study_of_two_picture_sizes_runs_from_images_to_tables(tmp_path):
    tiny_families.qwen(tmp_path / "tiny")
    study = load_study(
        {**STUDY, "models": [{**STUDY["models"][0], "path": str(tmp_path / "tiny")}]}
    )
    (model,) = study.models
    results = tmp_path / "results"
    task, run = results / "tiny" / "polls", options_of(model, results)
    names = [f"image{number}" for number in range(4)]
    pictures = [png(picture(number, (40, 24) if number % 2 else (16, 32))) for number in range(4)]
    data = results / "datasets" / "polls"
    images = pa.table({"image_id": names, "bytes": pictures})
    files.write_table(data / "images.parquet", images, {})
    rows = [
        {
            "question_id": f"{name}-{number}",
            "image_id": name,
            "subset": "polls",
            "text": TEXTS[number],
            "options": ["Yes", "No"],
            "label": number % 2,
        }
        for name in names
        for number in range(3)
    ]
    questions = pa.Table.from_pandas(pd.DataFrame(rows), preserve_index=False)
    files.write_table(data / "questions.parquet", questions, {"revision": None})
    features = task / "features.safetensors"
    whole = {"images": data / "images.parquet", "signals": [], "budget": None}
    encode.main(argparse.Namespace(**run, **whole, out=features))
    counts = PerImage(open_arrays(features), "saliency").counts
    assert counts == [8, 15, 8, 15]  # pixels / 64
    matched = load_study({**STUDY, **MATCHED})
    listed = [*cells(study, model), *cells(matched, matched.models[0])[1:]]
    for name in ("full", "saliency", "uniform", "vispruner"):
        parameters = next(dict(cell.parameters) for cell in listed if cell.family == name)
        assert parameters.get("positions", "original") == "original"  # all that Qwen knows
        out = [task / name / "ranking.safetensors"]
        inputs = argparse.Namespace(features=features, signals=[], questions=None)
        budgets = ["50%", "25%", 2] if name in ("uniform", "vispruner") else []
        rank.rank_plugin(inputs, name, [parameters], budgets, out)
    order = lineage.ranking(task / "uniform" / "ranking.safetensors", "50%").order
    middles = [[0, 1, 5, 7], [0, 1, 3, 4, 10, 11, 13, 14]]  # of 4 rows of 2, of 3 rows of 5
    assert [row.tolist() for row in order[:2]] == middles
    place = task / "downsample" / "50pct" / lineage.SMALLER
    more = {"images": data / "images.parquet", "signals": [], "whole": features, "budget": "50%"}
    encode.main(argparse.Namespace(**run, **more, out=place))
    smaller = PerImage(open_arrays(place), "saliency").counts
    assert smaller == [3, 8, 3, 8]  # of 16 x 32 pixels to 11 x 23, of 40 x 24 to 29 x 18
    predictions = inferred(results, run, "tiny", "polls", listed, layers=4)
    assert {path.parent.name for path in predictions} == {"all", "50pct", "25pct", "2", "0"}
    for path in predictions:
        cell = files.read_facts(path)["cell"]
        kept = files.read_table(path)["n_visual"].to_pylist()
        if "match" in cell["parameters"]:  # one of four layers sees all: 8 + 3 * 3, 15 + 3 * 6
            assert kept == ([3] * 3 + [6] * 3) * 2
            continue
        if cell["strategy"] == "downsample":
            assert kept == [count for count in smaller for _ in range(3)]
            continue
        assert kept == [kept_tokens(cell["budget"], count) for count in counts for _ in range(3)]
    scored(results, {"tiny": predictions}, "polls")
    files.write_json(results / "study.json", STUDY)
    metrics = Results(results).metrics
    assert set(metrics["budget"]) == {12, 6, 3, 2, 0}  # means over images, rounded
    assert set(metrics.query("strategy == 'downsample'")["budget"]) == {6}
    shares = metrics.drop_duplicates(["strategy", "budget"]).set_index(["strategy", "budget"])
    assert shares.loc[("full", 12), "share"] == 1
    means = metrics.query("metric == 'tokens_per_layer' and subset == 'all'")
    means = means.set_index(["strategy", "budget"])
    assert means.loc[("fastv-layer1-matchmean_tokens", 6), "value"] == pytest.approx(6.25)
    assert shares.loc[("fastv-layer1-matchmean_tokens", 6), "share"] == pytest.approx(
        shares.loc[("saliency", 6), "share"]
    )
    frame = Results(results).predictions("tiny", "polls", "saliency", 6)
    assert sorted(set(frame["n_visual"])) == [4, 8]


def options_of(model, results):
    """Describe a model's files; return the options that its stages share."""
    manifest = results / "models" / model.name / "manifest.json"
    files.write_json(manifest, model_folder.describe(Path(model.path), model.family, {}))
    return {
        "manifest": manifest,
        "weights": None,
        "source": json.dumps(model.source()),
        "settings": json.dumps(model.run_settings()),
        "device": "cpu",
        "threads": 1,
    }


def inferred(results, run, model, dataset, listed, layers=None):
    """Infer cells; return their files."""
    task, data = results / model / dataset, results / "datasets" / dataset
    infer.main(
        argparse.Namespace(
            **run,
            model=model,
            layers=layers,
            dataset=dataset,
            cells=json.dumps([cell.settings() for cell in listed]),
            questions=data / "questions.parquet",
            features=task / "features.safetensors",
            folder=task,
            store=results / ".cells",
            batch_tokens=256,
        )
    )
    return sorted(task.glob("*/*/predictions.parquet"))


def scored(results, predictions, dataset):
    """Score the predictions of each model and write the tables of all."""
    scores = {name: results / "scores" / name / f"{dataset}.safetensors" for name in predictions}
    for name, paths in predictions.items():
        stages.run(score, predictions=paths, output=scores[name], resamples=100)
    stages.run(compare, scores=list(scores.values()), folder=results, level=0.95)


def test_llava_on_pictures_in_their_own_shape_runs_from_images_to_tables(tmp_path):
    """Whole squares are answered as LLaVA itself answers them."""
    tiny_llava(tmp_path / "tiny", image_size=120, patch_size=12)
    path, results = str(tmp_path / "tiny"), tmp_path / "results"
    square = {"name": "square", "family": "llava", "visual_tokens": 100, "image": "crop"}
    native = {"name": "native", "family": "llava-native", "patches": 100}
    settings = {
        "title": "Pictures of two shapes",
        "models": [{**model, "path": path} for model in (native, square)],
        "datasets": [{"name": "shapes", "loader": "digits-shapes", "images": 4}],
        "strategies": ["full", "uniform", {"strategy": "fastv", "layer": 1}],
        "budgets": ["40%"],
    }
    study = load_study(settings)
    shapes = results / "datasets" / "shapes"
    both = {name: shapes / f"{name}.parquet" for name in ("images", "questions")}
    given = {"dataset": "shapes", "loader": "digits-shapes", "params": '{"images": 4}'}
    data.main(argparse.Namespace(**given, **both))
    predictions = {}
    for model in study.models:
        run, task = options_of(model, results), results / model.name / "shapes"
        features, listed = task / "features.safetensors", cells(study, model)
        whole = {"images": both["images"], "signals": [], "budget": None}
        encode.main(argparse.Namespace(**run, **whole, out=features))
        inputs = argparse.Namespace(features=features, signals=[], questions=None)
        for cell in listed[:2]:
            out = [task / cell.strategy / "ranking.safetensors"]
            budgets = [cell.budget] if cell.family == "uniform" else []
            rank.rank_plugin(inputs, cell.family, [dict(cell.parameters)], budgets, out)
        predictions[model.name] = inferred(results, run, model.name, "shapes", listed)
    scored(results, predictions, "shapes")
    files.write_json(results / "study.json", settings)
    found = Results(results)
    means = found.metrics.query("model == 'native'").groupby("strategy")["budget"].first()
    assert means.to_dict() == {"fastv-layer1": 32, "full": 80, "uniform": 32}
    for strategy, budget in means.items():
        mine = found.predictions("native", "shapes", strategy, budget)
        share = 1 if strategy == "full" else 0.4
        assert set(mine["n_visual"]) == {round(60 * share), round(100 * share)}
        theirs = found.predictions("square", "shapes", strategy, round(100 * share))
        squares = mine["n_visual"] == round(100 * share)
        for column in ("confidence", "coverage"):
            np.testing.assert_allclose(mine[column][squares], theirs[column][squares], atol=1e-5)
        assert not np.allclose(mine["confidence"], theirs["confidence"], atol=1e-5)


def ranked(folder, model, family, strategy, budgets=()):
    """Encode three images, rank them by a strategy; return both files and what was encoded."""
    settings = {"visual_tokens": None, "dtype": "float32", **model}
    loaded = load_model(family, folder, settings, torch.device("cpu"))
    pictures = [picture(number, size) for number, size in enumerate([(60, 44), (26, 26), (30, 70)])]
    with torch.inference_mode():
        encoded = loaded.encode(pictures)
    features, out = folder / "features.safetensors", folder / "ranking.safetensors"
    with Spool(features) as spool:
        grids = []
        for number, one in enumerate(encoded):
            spool.add("features", one.features)
            spool.add("saliency", one.saliency)
            if one.tiles is not None:
                spool.add("tiles", one.tiles)
            grids += [(number, *sides) for sides in one.grids]
        layout = torch.tensor([one.layout for one in encoded]).int()
        facts = {"image_id": ["a", "b", "c"]}
        spool.write(facts, [], {"layout": layout, "grids": torch.tensor(grids).int()})
    inputs = argparse.Namespace(features=features, signals=[], questions=None)
    rank.rank_plugin(inputs, strategy, [{}], budgets, [out])
    return SimpleNamespace(model=loaded, encoded=encoded, features=features, out=out)


@pytest.mark.slow
def test_images_of_several_tiles_are_pooled_tile_by_tile(tmp_path):
    tiny_families.internvl(tmp_path)
    settings = {"min_tiles": 1, "max_tiles": 6, "template": "internvl-hf"}
    made = ranked(tmp_path, settings, "internvl", "pool", ["100%", "11.1%"])
    counts = [len(one.features) for one in made.encoded]
    assert len(set(counts)) == 3
    asked = pd.DataFrame(
        [("q", image, TEXTS[0], ["Yes", "No"]) for image in "abc"],
        columns=["question_id", "image_id", "text", "options"],
    )
    session = Session(made.model, asked, made.features, 4096)
    pool, full = (plugins.load("strategies", name) for name in ("pool", "full"))
    logits = {}
    for budget in ("100%", "11.1%"):
        kept = lineage.ranking(made.out, budget)
        tokens = Merged(kept.places, kept.weight, kept.starts, None)
        for number, one in enumerate(made.encoded):
            tiles = one.features.view(-1, 9, one.features.shape[1])
            pooled = tiles.mean(1) if budget == "11.1%" else one.features  # a token of each tile
            merged = tokens.tokens(number, number, one.features)
            torch.testing.assert_close(merged, pooled, atol=1e-6, rtol=0)
        answers = session.run(pool, pool.Params(), budget, tokens, kept.coverage)
        assert answers.n_visual.tolist() == [kept_tokens(budget, count) for count in counts]
        logits[budget] = np.stack(answers.logits)
    every = [np.arange(count, dtype=np.int16) for count in counts]
    whole = session.run(full, full.Params(), "all", every, np.ones(3, np.float32))
    np.testing.assert_allclose(logits["100%"], np.stack(whole.logits), atol=2e-5)
    assert np.abs(logits["11.1%"] - logits["100%"]).max() > 0.01


@pytest.mark.slow
def test_tiles_ranked_apart_take_turns(tmp_path):
    tiny_families.llava_next(tmp_path)
    settings = {"unpad": True, "newline": "drop", "template": "llava_next-vicuna-hf"}
    made = ranked(tmp_path, {**settings, "per": "tile"}, "llava-next", "saliency")
    for one, order in zip(made.encoded, lineage.ranking(made.out, "100%").order, strict=True):
        tiles, order = one.tiles.numpy(), order.astype(int)
        assert set(tiles[: one.layout[0]]) == {0}  # the base image comes first
        sizes = np.bincount(tiles)
        for budget in (1, 7, 60, len(order)):
            shares = np.bincount(tiles[order[:budget]], minlength=len(sizes))
            left = sizes > shares
            assert shares[left].max(initial=0) - shares[left].min(initial=budget) <= 1
            assert shares.max() - shares[left].min(initial=budget) <= 1
        for tile in range(len(sizes)):
            saliency = one.saliency.numpy()[order[tiles[order] == tile]]
            assert (np.diff(saliency) <= 0).all()


def test_a_picture_of_fewer_patches_is_the_upper_left_of_the_square(tmp_path):
    tiny_llava(tmp_path)  # 4 x 4 patches of 14 pixels
    settings = {"dtype": "float32", "template": "vicuna_v1", "visual_tokens": None, "patches": 16}
    native = load_model("llava-native", tmp_path, settings, torch.device("cpu"))
    square = Llava(
        tmp_path, {**settings, "visual_tokens": 16, "image": "crop"}, torch.device("cpu")
    )
    vision = native.model.config.vision_config
    whole = picture(0, (vision.image_size, vision.image_size))
    cut = whole.crop((0, 0, vision.image_size, 3 * vision.patch_size))
    tower = square.model.model.vision_tower
    with torch.inference_mode():
        alike, fewer = native.encode([whole, cut])
        expected = square.encode([whole])[0]
        entering = tower.embeddings(square.pixels([whole]))[:, :13]  # CLS and three rows
        states = tower.pre_layrnorm(entering)
        for layer in tower.encoder.layers[:-1]:  # the penultimate layer's states
            states = layer(states, None)
    torch.testing.assert_close(alike.features, expected.features)
    torch.testing.assert_close(alike.saliency, expected.saliency)
    assert (alike.grids, fewer.grids) == (((4, 4),), ((3, 4),))
    torch.testing.assert_close(fewer.features, states[0, 1:])
    for size in ((57, 14), (14, 84)):
        with pytest.raises(PrunecalError, match="up to a square of 56; use the family llava"):
            native.encode([picture(0, size)])


def test_pictures_of_two_shapes_ask_about_the_digits_that_are_on_them():
    made = digits_shapes.load(digits_shapes.Params(images=12, rows=5))
    whole = digits_pope.load(digits_pope.Params(images=12))
    heights = [Image.open(io.BytesIO(content)).height for _, content in made.images]
    assert heights[::2] == [120] * 6
    assert set(heights[1::2]) <= {60, 120}
    assert heights.count(60) > 2
    canvases = canvas.test_canvases(0, 12)
    for row in made.questions.itertuples():
        number = int(row.image_id.rpartition("-")[2])
        shown = {
            digit.value
            for digit in canvases[row.image_id].digits
            if digit.top + digit.size // 2 < heights[number]
        }
        (category,) = [one for one in CATEGORIES if one.text == row.text]
        assert category.holds(shown) == (row.label == 0)
    assert len(made.questions) == len(whole.questions)


def test_equal_numbers_are_stored_as_before_and_others_flat(tmp_path):
    random = np.random.default_rng(0)
    same = [random.standard_normal((4, 3)).astype(np.float32) for _ in range(3)]
    other = [random.standard_normal((count, 3)).astype(np.float32) for count in (4, 2, 7)]
    assert together(same).values.shape == (3, 4, 3)
    flat = together(other)
    assert flat.tokens.tolist() == [4, 2, 7]
    facts = {"image_id": ["a", "b", "é"], "model": "m"}
    for name, parts in (("same", same), ("other", other)):
        with Spool(tmp_path / name) as spool:
            for part in parts:
                spool.add("features", torch.from_numpy(part).bfloat16())
                spool.add("saliency", torch.from_numpy(part[:, 0].copy()))
            spool.write(facts, [], {})
        read = PerImage(open_arrays(tmp_path / name), "saliency")
        for part, values in zip(parts, read, strict=True):
            np.testing.assert_array_equal(values, part[:, 0])
    stacked = torch.from_numpy(np.stack(same))
    arrays = {"features": stacked.bfloat16(), "saliency": stacked[..., 0].contiguous()}
    write_tensors(tmp_path / "reference", arrays, facts)
    assert (tmp_path / "same").read_bytes() == (tmp_path / "reference").read_bytes()


def test_features_of_a_data_set_are_never_in_memory_together(tmp_path):
    counts = np.random.default_rng(0).integers(50, 300, 80).tolist()
    values = torch.ones(max(counts), 64)
    tracemalloc.start()
    with Spool(tmp_path / "features") as spool:
        for count in counts:
            spool.add("features", values[:count])
        spool.write({}, [], {})
    read = PerImage(open_arrays(tmp_path / "features"), "features")
    assert sum(len(part) for part in read) == sum(counts)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (tmp_path / "features").stat().st_size / 4


def test_a_ranking_of_images_that_differ_is_cut_image_by_image(tmp_path):
    path = tmp_path / "saliency" / "ranking.safetensors"
    orders = [np.array(order, np.int16) for order in ([2, 0, 1], [1, 0], [4, 3, 2, 1, 0])]
    coverages = [np.linspace(0.5, 1, len(order), dtype=np.float32) for order in orders]
    arrays = {"order": together(orders).values, "coverage": together(coverages).values}
    arrays |= {"tokens": together(orders).tokens, "layout": np.ones((3, 2), np.int32)}
    write_arrays(path, arrays, {"image_id": ["a", "b", "c"]})
    kept = lineage.ranking(path, "40%")
    assert [order.tolist() for order in kept.order] == [[2], [1], [4, 3]]
    assert [order.tolist() for order in lineage.ranking(path, 4).order][1] == [1, 0]
    arrays["order"][0] = 1  # the first image has a token twice
    write_arrays(path, arrays, {"image_id": ["a", "b", "c"]})
    with pytest.raises(PrunecalError, match="lacks a token of its image"):
        lineage.ranking(path, "40%")


@pytest.mark.parametrize(
    ("budget", "tokens", "kept"),
    [("25%", 391, 98), ("1%", 4, 1), ("100%", 7, 7), ("all", 7, 7), (64, 30, 30), (64, 65, 64)],
)
def test_kept_tokens(budget, tokens, kept):
    assert kept_tokens(budget, tokens) == kept


@pytest.mark.parametrize("budget", [64, "25%", "11.1%", "all"])
def test_a_folders_name_tells_its_budget(budget):
    assert of_folder(folder(budget)) == str(budget)


def test_shares_have_one_form_and_a_folder():
    assert [share_text(text) for text in ("25 %", "11.10%", "025%", "0.50%")] == [
        "25%",
        "11.1%",
        "25%",
        "0.5%",
    ]
    assert [folder(budget) for budget in (64, "11.1%", "all")] == ["64", "11.1pct", "all"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"visual_tokens": 16}, "visual_tokens of the model 'tiny' depend on the image; remove"),
        ({"square": 28}, "visual_tokens is missing; add it"),
        ({"min_pixels": 10**9}, "min_pixels is above max_pixels"),
        ({"image": "pad"}, "'image' is unknown"),
    ],
)
def test_settings_that_do_not_fit_the_family_are_named(change, message):
    with pytest.raises(PrunecalError, match=message):
        load_study({**STUDY, "models": [STUDY["models"][0] | change]})


@pytest.mark.parametrize(
    ("strategy", "change", "message"),
    [
        (
            "hiprune",
            {},
            "hiprune reads attention and early_attention, which models of the",
        ),
        ("visionzip", {}, "visionzip merges visual tokens, but in models of the family qwen2-5-vl"),
        ("pool", {}, "pool merges visual tokens"),
        ("sparsevlm", {}, "sparsevlm merges visual tokens"),
        ("prumerge", {"family": "internvl"}, "prumerge reads last_cls_query and last_keys"),
        ("pool", {"family": "idefics3"}, "pool merges visual tokens"),
        (
            "vispruner",
            {"family": "llava-next", "per": "tile"},
            "tiles cannot be ranked apart; leave it out, or set `per: image` for tiny",
        ),
    ],
)
def test_strategies_that_a_family_has_nothing_for_are_refused_by_name(strategy, change, message):
    model = {key: STUDY["models"][0][key] for key in ("name", "family", "template", "path")}
    with pytest.raises(PrunecalError, match=message):
        load_study({**STUDY, "models": [model | change], "strategies": ["full", strategy]})


def test_strategies_that_rank_for_each_question_do_not_rank_tiles_apart(monkeypatch):
    """No family gives both today, but one of a plugin may."""
    from prunecal.models import llava_next

    monkeypatch.setattr(llava_next, "SIGNALS", ("image_embeds", *TEXT_SIGNALS), raising=False)
    model = {key: STUDY["models"][0][key] for key in ("name", "template", "path")}
    model |= {"family": "llava-next", "text_tower": {"path": "clip"}}
    study = {**STUDY, "strategies": ["full", "cdpruner"]}
    load_study({**study, "models": [model]})
    with pytest.raises(PrunecalError, match="cdpruner ranks tokens for each question, so that til"):
        load_study({**study, "models": [model | {"per": "tile"}]})


def test_positions_that_a_family_does_not_know_are_refused():
    strategies = ["full", {"strategy": "saliency", "positions": "compact"}]
    with pytest.raises(PrunecalError, match="compact is not known for models of the family qwen2"):
        load_study({**STUDY, "strategies": strategies})
