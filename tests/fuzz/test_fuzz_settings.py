"""Whatever stands in a text file of settings, there is a result or one of our sentences."""

import argparse
import json
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.numpy import save
from snakemake.utils import update_config

from helpers import synthetic_results
from helpers.fuzzing import YAML, damaged, fuzzed, json_text, one_of, result_or_sentence, spoilt
from prunecal.infer import Job
from prunecal.sources import model_folder
from prunecal.statistics.claim_grammar import read_claims
from prunecal.statistics.claim_tests import evaluate
from prunecal.statistics.interactions import read_sides
from prunecal.statistics.scores import read_scores
from prunecal.storage import files
from prunecal.study import cells

ROOT = Path(__file__).parents[2]


def read(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def studies():
    """Return the settings of every study that comes with the project."""
    found = [read("config.yaml")]
    for path in sorted((ROOT / "studies").glob("*.yaml")):
        settings = read("config.yaml")
        update_config(settings, read(path))
        found.append(settings)
    return found


STUDIES = studies()
CLAIMS = read("reports/claims.yaml")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return the folder of a made-up study with scores."""
    strategies = ["full", "saliency", {"strategy": "scope", "alpha": [0.0, 0.5, 1.0]}]
    made = synthetic_results.study(strategies, budgets=[4, 16])
    folder = synthetic_results.write(tmp_path_factory.mktemp("fuzz"), made)
    synthetic_results.write_sources(folder, resamples=20)
    return folder


@fuzzed(50)
@given(st.sampled_from(STUDIES).flatmap(lambda study: spoilt(study, YAML)))
@example(STUDIES[0])
@example(STUDIES[1])
def test_any_settings_of_a_study(settings):
    study = result_or_sentence(cells.load_study, settings)
    if repr(settings) in map(repr, STUDIES):  # 0 equals False, but is no truth value
        assert study is not None
    for model in study.models if study else ():
        assert cells.cells(study, model)


def judged(path, scores):
    return [evaluate(claim, scores) for claim in read_claims(path)]


@fuzzed(20)
@given(claims=spoilt(CLAIMS, YAML))
@example(claims=CLAIMS)
def test_any_claims(results, tmp_path_factory, claims):
    path = tmp_path_factory.getbasetemp() / "claims.yaml"
    path.write_text(yaml.dump(claims), encoding="utf-8", errors="surrogatepass")
    scores = read_scores(sorted(results.glob("scores/*/*.safetensors")))
    verdicts = result_or_sentence(judged, path, scores)
    if repr(claims) == repr(CLAIMS):
        assert {one["verdict"] for one in verdicts} > {"not tested"}


YAML_TEXTS = st.binary(max_size=30) | one_of(
    *(b"2001-99-99", b"!!int ''", b"!!timestamp x", b"!!bool x", b"!!float .", b"!!set [1]"),
    *(b"[" * 5000, b"&a [*a]", b"1" * 5000, b"\xff\xfe", b"? [1]\n: 2", b"!!python/none x"),
)


@fuzzed(10)
@given(text=YAML_TEXTS, begun=st.sampled_from([b"", b"- ", b"- id: ", b"- conditions: "]))
@example(text=b"[" * 5000, begun=b"")
@example(text=b"2001-99-99", begun=b"- id: ")
@example(text=b"!!int ''", begun=b"- id: ")
def test_any_text_for_claims(tmp_path_factory, text, begun):
    path = tmp_path_factory.getbasetemp() / "claims.yaml"
    path.write_bytes(begun + text)
    result_or_sentence(read_claims, path)


JSON_TEXTS = st.binary(max_size=20) | one_of(b"[" * 10**5, b"1" * 5000, b"NaN", rb'"\ud8')


def texts(value):
    """Return texts that are JSON of this value spoilt, or hardly JSON."""
    whole = json.dumps(value)
    return spoilt(value).map(json_text).map(str.encode) | damaged(whole.encode()) | JSON_TEXTS


def named(folder):
    (side, *_) = read_sides(folder)
    return side.results


@fuzzed(10)
@given(data=st.data())
def test_any_study_that_is_compared(results, tmp_path_factory, data):
    text = data.draw(texts(json.loads((results / "study.json").read_text())))
    folder = tmp_path_factory.mktemp("compared")
    (folder / "scores").symlink_to(results / "scores")
    (folder / "study.json").write_bytes(text)
    place = result_or_sentence(named, folder)
    assert place is None or place in (folder, folder.parent)
    study = result_or_sentence(lambda: cells.load_study(files.read_json(folder / "study.json")))
    assert study is None or study.models


@fuzzed(10)
@given(data=st.data())
def test_any_manifest_of_a_model(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text("{}")
    file = {"name": "config.json", "size": 2, "sha256": "0" * 64}
    whole = {"digest": "0" * 64, "family": "llava", "revision": None, "files": [file]}
    path = folder / "manifest.json"
    path.write_bytes(data.draw(texts(whole)))
    questions = folder / "questions.parquet"
    files.write_table(questions, pa.table({"text": ["?"]}), {"revision": "1"})
    arguments = argparse.Namespace(
        manifest=path, questions=questions, settings="{}", batch_tokens=1
    )
    facts = result_or_sentence(lambda: Job(arguments).shared_facts)
    assert facts is None or isinstance(facts["model_digest"], str)
    described = result_or_sentence(files.read_object, path)
    if described is not None:
        result_or_sentence(lambda: list(model_folder.faults(folder, described)))


@fuzzed(10)
@given(data=st.data(), name=st.sampled_from(["config.json", "model.safetensors.index.json"]))
def test_any_folder_of_a_model(tmp_path_factory, data, name):
    folder = tmp_path_factory.mktemp("weights")
    index = {"weight_map": {"a": "model.safetensors", "b": "model.safetensors"}}
    about = {"model_type": "llava", "text_config": {"vocab_size": 3}}
    whole = {"config.json": about, "model.safetensors.index.json": index}
    (folder / "model.safetensors").write_bytes(save({}))
    for file in ("tokenizer.json", "processor_config.json"):
        (folder / file).write_text("{}")
    for file, content in whole.items():
        (folder / file).write_text(json.dumps(content))
    model_folder.check(folder, "llava")
    (folder / name).write_bytes(data.draw(texts(whole[name])))
    result_or_sentence(model_folder.check, folder, "llava")
