"""Whatever a result file holds, stages read it or name it: parquet and safetensors, all kinds."""

import argparse
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from helpers import synthetic_results
from helpers.fuzzing import damaged, fuzzed, json_text, result_or_sentence, spoilt
from helpers.tiny_llava import questions, tiny_llava
from prunecal import infer, rank, score
from prunecal.caching import lineage
from prunecal.datasets import COLUMNS
from prunecal.engine.session import Session
from prunecal.figures import cell_selection
from prunecal.figures.naming import strategy_name
from prunecal.models.llava import Llava
from prunecal.statistics import comparisons, interactions
from prunecal.statistics.kept_saliency import Sources
from prunecal.statistics.predictions import read_cells
from prunecal.statistics.scores import read_scores
from prunecal.statistics.subsets import subsets
from prunecal.storage import files
from prunecal.strategies import full

# a failing file is reported whole
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")
MODEL, DATASET = synthetic_results.MODEL, synthetic_results.DATASETS[0]
TOKENS, IMAGES = 9, 5
IDS = [f"image{number}" for number in range(IMAGES)]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return the folder of a made-up study with scores."""
    strategies = ["full", "saliency", {"strategy": "scope", "alpha": [0.0, 0.5, 1.0]}]
    made = synthetic_results.study(strategies, budgets=[4])
    folder = synthetic_results.write(tmp_path_factory.mktemp("fuzz"), made)
    synthetic_results.write_sources(folder, resamples=20)
    return folder


@st.composite
def other_columns(draw, table):
    """Change one or two columns of a table: gone, of another type, with nothing in some rows."""
    for name in draw(st.sets(st.sampled_from(table.column_names), min_size=1, max_size=2)):
        at, rows = table.column_names.index(name), len(table)
        shift = draw(st.integers(0, rows))
        others = {
            "gone": None,
            "numbers": pa.array(np.linspace(-1, 300, rows)),
            "whole numbers": pa.array(np.arange(rows) - shift),
            "texts": pa.array([f"{row % 7}" for row in range(rows)]),
            "lists": pa.array([[0.5] * (row % 4) for row in range(rows)]),
            "huge": pa.array([[3e38, -3e38]] * rows, pa.list_(pa.float32())),
            "infinite": pa.array([[float("inf"), 0.0]] * rows),
            "lists of texts": pa.array([["yes", "no"]] * rows),
            "lists without values": pa.array([["a", None]] * rows),
            "nothing": pa.nulls(rows),
            "nothing in some rows": pa.concat_arrays(
                [table[name].combine_chunks()[shift:], pa.nulls(shift, table[name].type)]
            ),
            "another order": table[name].combine_chunks()[::-1],
        }
        kind = draw(st.sampled_from(sorted(others)))
        table = table.remove_column(at)
        if kind != "gone":
            table = table.add_column(at, name, others[kind])
    return table[: draw(st.sampled_from([len(table), len(table), 1, 0]))]


@st.composite
def parquets(draw, path):
    """Return bytes of a parquet file damaged, with other columns, or with other facts."""
    content = path.read_bytes()
    if draw(st.booleans()):
        return draw(damaged(content))
    table, facts = pq.read_table(path), files.read_facts(path)
    if draw(st.booleans()):
        table = draw(other_columns(table))
    else:
        facts = draw(spoilt(dict(facts)))
    file = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({files.METADATA_KEY: json_text(facts)}), file)
    return file.getvalue()


def cells_of(results):
    return sorted((results / MODEL / DATASET).glob("*/*/predictions.parquet"))


def scored(folder, paths, questions):
    """Read cells as figures and scoring do; return the score file."""
    cells = read_cells(paths)
    for path in paths:
        cell_selection.read(path)
    cell_selection.catalogue(paths)
    assert all(len(cell.confidence) == len(cell.label) for cell in cells)
    command = ["--predictions", *paths, "--questions", questions, "--output", folder / "s"]
    command += ["--resamples", 6, "--costly-resamples", 2]
    score.main(score.arguments_of(list(map(str, command))))
    return read_scores([folder / "s"])[0]


@fuzzed(30)
@given(data=st.data())
def test_any_predictions(results, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("predictions")
    first, second = cells_of(results)[:2]
    spoiled = folder / "predictions.parquet"
    spoiled.write_bytes(data.draw(parquets(first)))
    questions = results / "datasets" / DATASET / "questions.parquet"
    alone = data.draw(st.booleans())
    scores = result_or_sentence(
        scored, folder, [spoiled] if alone else [spoiled, second], questions
    )
    assert scores is None or len(scores.cells) == 2 - alone


def asked(path, rows):
    """Read questions as scoring and inference do."""
    subsets(rows, path)
    job = infer.Job(argparse.Namespace(questions=path))
    assert list(job.questions.columns) == list(COLUMNS)
    return files.read_facts(path)["dataset"]


@fuzzed(15)
@given(data=st.data())
def test_any_questions(results, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("questions") / "questions.parquet"
    path.write_bytes(data.draw(parquets(results / "datasets" / DATASET / path.name)))
    rows = read_cells(cells_of(results)[:1])[0].rows
    assert isinstance(result_or_sentence(asked, path, rows), str | None)


@st.composite
def safetensors(draw, content):
    """Return bytes of a safetensors file damaged, with another header, other facts or arrays."""
    deed = draw(st.sampled_from(["bytes", "header", "facts", "arrays"]))
    if deed == "bytes":
        return draw(damaged(content))
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    if deed == "header":
        text = json_text(draw(spoilt(header))).encode()
        said = draw(st.just(len(text)) | st.integers(0, 2**64 - 1))
        return said.to_bytes(8, "little") + text + content[8 + length :]
    facts = {name: json.loads(text) for name, text in header["__metadata__"].items()}
    arrays = dict(load(content))
    if deed == "facts":
        facts = draw(spoilt(facts))
        facts = facts if isinstance(facts, dict) else {}
    else:
        name = draw(st.sampled_from(sorted(arrays)))
        old = np.nan_to_num(arrays.pop(name))
        others = [
            None, old[:1], old[..., :1], old[None], old.ravel(), old[:0], old.astype(np.float16),
            old.astype(np.int64), old.astype(np.int64) - 1, old.astype(np.float64) * 1e300, -old,
            np.full_like(old, 7), old.astype(np.float64) * np.nan, old.astype(bool),
        ]  # fmt: skip
        other = others[draw(st.integers(0, len(others) - 1))]
        arrays |= {} if other is None else {name: np.ascontiguousarray(other)}
    metadata = {
        name.encode(errors="replace").decode(): json_text(value) for name, value in facts.items()
    }
    return save(arrays, metadata)


def features():
    """Return bytes of the features of a few images."""
    random = np.random.default_rng(0)
    arrays = {
        "features": random.normal(size=(IMAGES, TOKENS, 4)).astype(np.float32),
        "saliency": random.random((IMAGES, TOKENS), dtype=np.float32),
    }
    return save(arrays, {"image_id": json.dumps(IDS), "model": '"x"', "family": '"llava"'})


VARIANTS = {
    "full": [{}],
    "saliency": [{}],
    "random": [{"seed": 3}],
    "scope": [{"alpha": 0.0}, {"alpha": 1.5, "gap_power": 2.0}],
    "divprune": [{}],
}


def ranked(path, family):
    """Rank as the stage does, and return the orders as inference reads them."""
    outputs = [path.with_name(f"{number}.safetensors") for number in range(len(VARIANTS[family]))]
    inputs = argparse.Namespace(features=path, signals=[], questions=None)
    rank.rank_plugin(inputs, family, VARIANTS[family], [], outputs)
    return [np.stack(lineage.ranking(output, 1).order) for output in outputs]


@fuzzed(20)
@given(content=safetensors(features()), family=st.sampled_from(sorted(VARIANTS)))
def test_any_features(tmp_path_factory, content, family):
    path = tmp_path_factory.mktemp("features") / "features.safetensors"
    path.write_bytes(content)
    orders = result_or_sentence(ranked, path, family)
    assert orders is None or len(orders) == len(VARIANTS[family])
    task = (path.parts[-3], path.parts[-2])
    sources = Sources([], [path], [])
    saliency = result_or_sentence(sources.saliency, task, IDS)
    assert saliency is None or saliency.shape == (IMAGES, saliency.shape[1])


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    tiny_llava(folder, width=16, depth=1)
    settings = {"visual_tokens": 16, "template": "vicuna_v1", "image": "pad", "dtype": "float32"}
    return Llava(folder, settings, torch.device("cpu"))


def encoded():
    """Return bytes of features as wide as those of the tiny model."""
    random = np.random.default_rng(0)
    arrays = {
        "features": random.normal(size=(3, 16, 48)).astype(np.float32),
        "saliency": random.random((3, 16), dtype=np.float32),
    }
    return save(arrays, {"image_id": json.dumps([f"image{number}" for number in range(3)])})


ORDERS = [(3, 16), (3, 16), (2, 16), (3, 20)]  # images, tokens


def answered(model, path, shape):
    """Infer the unpruned cell."""
    session = Session(model, questions(), path, 512)
    order = np.tile(np.arange(shape[1], dtype=np.int16), (shape[0], 1))
    zeros = np.zeros(shape[0], np.float32)
    return session.run(full, full.Params(), 16, order[:, -16:], zeros).logits


@fuzzed(15)
@given(content=safetensors(encoded()), shape=st.sampled_from(ORDERS))
@example(content=encoded(), shape=ORDERS[0])
def test_any_features_for_a_model(llava, tmp_path_factory, content, shape):
    path = tmp_path_factory.mktemp("features") / "features.safetensors"
    path.write_bytes(content)
    logits = result_or_sentence(answered, llava, path, shape)
    assert logits is None or len(logits) == len(questions())
    if content == encoded() and shape == ORDERS[0]:
        assert logits is not None


def ranking():
    """Return bytes of a ranking of a few images."""
    random = np.random.default_rng(0)
    arrays = {
        "order": np.stack([random.permutation(TOKENS) for _ in IDS]).astype(np.int16),
        "coverage": np.sort(random.random((IMAGES, TOKENS), dtype=np.float32)),
    }
    return save(arrays, {"image_id": json.dumps(IDS), "parameters": "{}", "family": '"full"'})


@fuzzed(15)
@given(content=safetensors(ranking()), budget=st.integers(1, TOKENS + 1))
def test_any_ranking(tmp_path_factory, content, budget):
    path = tmp_path_factory.mktemp("ranking") / "ranking.safetensors"
    path.write_bytes(content)
    found = result_or_sentence(lineage.ranking, path, budget)
    assert found is None or all(len(order) == budget for order in found.order)
    sources = Sources([path], [], [])
    order = result_or_sentence(sources.order, path.parts[-4:-2], path.parts[-2], IDS, 4)
    assert order is None or len(order) == IMAGES


def studied(path, other):
    """Read scores as the tables, and two studies side by side, do."""
    (scores,) = read_scores([path])
    rows = comparisons.metric_rows(scores, 0.95)
    comparisons.parameter_names([scores])
    rows += comparisons.comparison_rows(scores, 0.95) + comparisons.detectable_rows(scores)
    sides = [interactions.Side(other, scores), *interactions.read_sides(other)[:1]]
    interactions.interactions(*sides, 0.95, strategy_name)
    return rows


@fuzzed(25)
@given(data=st.data())
def test_any_scores(results, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("scores") / "scores.safetensors"
    whole = results / "scores" / MODEL / f"{DATASET}.safetensors"
    path.write_bytes(data.draw(safetensors(whole.read_bytes())))
    rows = result_or_sentence(studied, path, results)
    assert rows is None or rows
