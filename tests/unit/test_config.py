import copy
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from snakemake.utils import update_config

from prunecal.core import plugins
from prunecal.core.errors import PrunecalError
from prunecal.core.parameters import Parameters
from prunecal.core.yaml_keys import refuse_repeated_keys, refuse_repeated_settings
from prunecal.study import schema
from prunecal.study.cells import cells, load_study
from prunecal.study.design import Design
from prunecal.study.prompts import TEMPLATES
from prunecal.study.schema import json_schema
from prunecal.study.settings import Study

ROOT = Path(__file__).parents[2]
OVERLAYS = sorted(ROOT.glob("studies/*.yaml"))


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def merged(overlay):
    """Merge a study over config.yaml by Snakemake's own function for --configfile."""
    settings = read(ROOT / "config.yaml")
    update_config(settings, read(overlay))
    return settings


def small(**changes):
    """Return settings of a small valid study, with some keys changed (None removes one)."""
    settings = {
        "title": "A study",
        "models": [
            {"name": "tiny", "family": "llava", "visual_tokens": 100, "train": {"recipe": "digits"}}
        ],
        "datasets": [{"name": "polls", "loader": "digits-pope", "images": 6}],
        "strategies": ["full", "saliency", {"strategy": "scope", "alpha": [0, 0.5]}],
        "budgets": [20, "5%"],
    }
    settings |= changes
    return {key: value for key, value in settings.items() if value is not None}


def model(**changes):
    return small(models=[{**small()["models"][0], **changes}])


def dataset(**changes):
    return small(datasets=[{**small()["datasets"][0], **changes}])


def strategy(*entries):
    return small(strategies=["full", *entries])


def test_several_dtypes_are_a_model_each():
    value = {"model": "tiny", "dataset": "polls", "metric": "ece", "value": 0.1}
    value |= {"tolerance": 0.01, "source": "a paper"}
    study = load_study(small(expect=[value]) | model(dtype=["float32", "bfloat16"]))
    assert [(one.name, one.dtype) for one in study.models] == [
        ("tiny-float32", "float32"),
        ("tiny-bfloat16", "bfloat16"),
    ]
    assert [one.model for one in study.expect] == ["tiny-float32", "tiny-bfloat16"]
    assert jsonschema.Draft202012Validator(json_schema()).is_valid(
        small() | model(dtype=["float32", "bfloat16"])
    )


@pytest.mark.parametrize("key", ["dtype", "quantization"])
def test_an_empty_list_of_precisions_is_refused_rather_than_the_model_left_out(key):
    models = [*small()["models"], {**small()["models"][0], "name": "other", key: []}]
    with pytest.raises(PrunecalError, match=key):
        load_study(small(models=models))


REFUSED = {  # settings: the whole message
    "an unknown key at the top": (
        small(budget=[3]),
        "config: 'budget' is unknown (did you mean 'budgets'?); known are title, study, models, "
        "datasets, strategies, budgets, imported, inference, statistics, expect",
    ),
    "a misspelt key rather than the one missing": (
        small(title=None, titel="x"),
        "config: 'titel' is unknown (did you mean 'title'?); known are title, study, models, "
        "datasets, strategies, budgets, imported, inference, statistics, expect",
    ),
    "a published value of a data set that the study lacks": (
        small(
            expect=[
                {"model": "tiny", "dataset": "poll", "metric": "ece", "value": 0.1}
                | {"tolerance": 0.01, "source": "a paper"}
            ]
        ),
        "config: expect: 'poll' is none of the datasets (did you mean 'polls'?); known are polls",
    ),
    "an unknown key of a block": (
        small(inference={"thread": 2}),
        "config: inference: 'thread' is unknown (did you mean 'threads'?); known are device, "
        "threads, batch_tokens, cells_per_job, gpus_per_job, mem_mb, runtime, slurm_partition, "
        "gpu_model, slurm_extra",
    ),
    "an unknown key of a model": (
        model(visual_token=3),
        "config: models, entry 1: 'visual_token' is unknown (did you mean 'visual_tokens'?); known "
        "are name, family, visual_tokens, layers, template, dtype, quantization, group_size, repo, "
        "revision, path, train, text_tower, image",
    ),
    "a strategy that reads questions for a model without a text tower": (
        small(strategies=["full", "trim"]),
        "config: strategies: trim reads CLIP's embedding of each question, but model 'tiny' names "
        "no text tower; give it `text_tower: {repo: ..., revision: ...}`, or leave the strategy "
        "out",
    ),
    "a text tower whose revision may change": (
        model(text_tower={"repo": "someone/clip", "revision": "main"}),
        "config: models, entry 1, text_tower: revision: 'main' may name other files tomorrow; give "
        "the commit, 40 digits from the repository's history on the Hub",
    ),
    "a text tower of two sources": (
        model(text_tower={"repo": "someone/clip", "path": "clip"}),
        "config: models, entry 1: text_tower: give one source of the text tower: repo (+ revision) "
        "or path",
    ),
    "a model with the name of a text tower": (
        small(
            models=[
                small()["models"][0] | {"text_tower": {"path": "clip"}},
                small()["models"][0] | {"name": "tiny-text-tower"},
            ]
        ),
        "config: models: 'tiny-text-tower' is how another model's text tower is named; rename the "
        "model",
    ),
    "an unknown setting of a recipe": (
        model(train={"recipe": "digits", "seeds": 1}),
        "config: models: entry 1: digits: 'seeds' is unknown (did you mean 'seed'?); known are "
        + ", ".join(plugins.load("recipes", "digits").Params.model_fields),
    ),
    "an unknown setting of a data set": (
        dataset(image=6),
        "config: datasets: entry 1: digits-pope: 'image' is unknown (did you mean 'images'?); "
        "known are images, seed",
    ),
    "an unknown parameter of a strategy": (
        strategy({"strategy": "scope", "alfa": 1}),
        "config: strategies: scope: 'alfa' is unknown (did you mean 'alpha'?); known are "
        "positions, alpha, gap_power, selection_dtype",
    ),
    "a parameter for a strategy that has none": (
        small(strategies=[{"strategy": "full", "alpha": 1}]),
        "config: strategies: full: 'alpha' is unknown; known are none",
    ),
    "a missing key": (small(budgets=None), "config: budgets is missing; add it"),
    "a misspelt key where a plugin's settings may stand": (
        small(models=[{"name": "m", "familly": "llava", "path": "p", "visual_tokens": 9}]),
        "config: models, entry 1: family is missing; is 'familly' its misspelling?",
    ),
    "a missing key of a model": (
        small(models=[{"family": "llava", "visual_tokens": 4, "path": "x"}]),
        "config: models, entry 1: name is missing; add it",
    ),
    "an empty list": (
        small(models=[]),
        "config: models = a list of 0 does not fit; give at least one entry",
    ),
    "text for a list": (
        small(datasets="polls"),
        'config: datasets = "polls" does not fit; give a list',
    ),
    "text for a block": (
        small(inference="cpu"),
        'config: inference = "cpu" does not fit; give settings as `key: value`',
    ),
    "text for a number": (
        model(visual_tokens="all"),
        'config: models, entry 1: visual_tokens = "all" does not fit; give a whole number',
    ),
    "a fraction for a whole number": (
        small(inference={"threads": 1.5}),
        "config: inference: threads = 1.5 does not fit; give a whole number",
    ),
    "a number for text": (
        small(title=5),
        "config: title = 5 does not fit; give text (in quotes, if YAML takes it for something "
        "else)",
    ),
    "a truth value for a whole number": (
        small(statistics={"seed": True}),
        "config: statistics: seed = true does not fit; give a whole number",
    ),
    "a truth value for a number": (
        strategy({"strategy": "scope", "alpha": [0, True]}),
        "config: strategies: scope: alpha = true does not fit; give a number",
    ),
    "a truth value for a data set's number": (
        dataset(images=True),
        "config: datasets: entry 1: digits-pope: images = true does not fit; give a whole number",
    ),
    "more images than anyone waits for": (
        dataset(images=10**9),
        "config: datasets: entry 1: digits-pope: images = 1000000000 does not fit; give at most "
        "1000000",
    ),
    "a truth value for a budget": (
        small(budgets=[True]),
        "config: budgets: entry 1: True is neither a whole number of tokens nor a share like '25%'",
    ),
    "text for a budget": (
        small(budgets=[4, "4O%"]),
        "config: budgets: entry 2: '4O%' is neither a whole number of tokens nor a share like "
        "'25%'",
    ),
    "a fraction for a budget": (
        small(budgets=[2.5]),
        "config: budgets: entry 1: 2.5 is neither a whole number of tokens nor a share like '25%'",
    ),
    "a choice that is not offered": (
        small(inference={"device": "gpu"}),
        "config: inference: device = \"gpu\" does not fit; give 'auto', 'cpu' or 'cuda'",
    ),
    "a number below its range": (
        small(statistics={"bins": 1}),
        "config: statistics: bins = 1 does not fit; give at least 2",
    ),
    "a number at an open end of its range": (
        small(statistics={"level": 1}),
        "config: statistics: level = 1 does not fit; give less than 1.0",
    ),
    "no number": (
        strategy({"strategy": "scope", "alpha": float("nan")}),
        "config: strategies: scope: alpha = NaN does not fit; give a finite number",
    ),
    "an unknown strategy": (
        strategy("scop"),
        "config: strategies: the strategy 'scop' is unknown (did you mean 'scope'?); known are "
        + ", ".join(plugins.names("strategies")),
    ),
    "a strategy without its name": (
        strategy({"alpha": 0}),
        "config: strategies: {'alpha': 0} lacks `strategy:`, the strategy's name",
    ),
    "no strategy at all": (
        strategy(3),
        "config: strategies: entry 2: 3 is neither a strategy's name nor a mapping with "
        "`strategy:`",
    ),
    "an empty sweep": (
        strategy({"strategy": "scope", "alpha": []}),
        "config: strategies: scope: the sweep of alpha is empty; give it a value",
    ),
    "an unknown loader": (
        dataset(loader="digits-pop"),
        "config: datasets, entry 1: loader: the data set loader 'digits-pop' is unknown (did you "
        "mean 'digits-pope'?); known are " + ", ".join(plugins.names("datasets")),
    ),
    "an unknown family": (
        model(family="lava"),
        "config: models, entry 1: family: the model family 'lava' is unknown (did you mean "
        "'llava'?); known are " + ", ".join(plugins.names("models")),
    ),
    "an unknown recipe": (
        model(train={"recipe": "digit"}),
        "config: models: entry 1: the recipe 'digit' is unknown (did you mean 'digits'?); known "
        "are digits",
    ),
    "training without a recipe": (
        model(train={"seed": 0}),
        "config: models: entry 1: `recipe:` must be one of digits",
    ),
    "an unknown template": (
        model(template="vicuna"),
        "config: models, entry 1: template: 'vicuna' is unknown (did you mean 'vicuna_v1'?); known "
        "are " + ", ".join(TEMPLATES),
    ),
    "a budget above the model's tokens": (
        small(budgets=[101]),
        "config: budgets: 101 visual tokens are not between 1 and the 100 that model 'tiny' has; "
        "give a number in that range",
    ),
    "a budget of nothing": (
        small(budgets=[0]),
        "config: budgets: 0 visual tokens are not between 1 and the 100 that model 'tiny' has; "
        "give a number in that range",
    ),
    "a share above all": (
        small(budgets=["101%"]),
        "config: budgets: 101% of the tokens, 101, are not between 1 and the 100 that model "
        "'tiny' has; give a number in that range",
    ),
    "a share below one token": (
        small(budgets=["0.4 %"]),
        "config: budgets: 0.4 % of the tokens, 0, are not between 1 and the 100 that model 'tiny' "
        "has; give a number in that range",
    ),
    "a budget that is defined twice": (
        small(budgets=[20, "20%"]),
        "config: budgets of tiny: 20 is defined twice; remove one",
    ),
    "a strategy that is defined twice": (
        strategy("scope", {"strategy": "scope", "alpha": [0, 1.0]}),
        "config: strategies: 'scope-alpha1' is defined twice; remove one",
    ),
    "two models with one name": (
        small(models=small()["models"] * 2),
        "config: models: 'tiny' is defined twice; remove one",
    ),
    "two data sets with one name": (
        small(datasets=small()["datasets"] * 2),
        "config: datasets: 'polls' is defined twice; remove one",
    ),
    "two data sets whose names differ in case alone": (
        small(datasets=[small()["datasets"][0] | {"name": name} for name in ("polls", "Polls")]),
        "config: datasets: 'polls' and 'Polls' differ in case alone, and some file systems take "
        "them for one; rename one of them",
    ),
    "names that are one when joined": (
        small(
            models=[small()["models"][0] | {"name": name} for name in ("a", "a_b")],
            datasets=[small()["datasets"][0] | {"name": name} for name in ("c", "b_c")],
        ),
        "config: datasets: figures of 'c' under model 'a_b' and of 'b_c' under 'a' would have one "
        "name; rename a model or a data set",
    ),
    "a name that files have": (
        model(name="metrics.parquet"),
        "config: models, entry 1: name: 'metrics.parquet' cannot name a folder, because files "
        "beside it end like that; give a name without .parquet, .safetensors, .csv, .json, .html "
        "at its end",
    ),
    "a study that reads like a comparison of two": (
        small(study="a-vs-b"),
        "config: study: 'a-vs-b' holds '-vs-', which stands between the names of two compared "
        "studies; give another name",
    ),
    "two words for one of the scheduler's": (
        small(inference={"slurm_partition": "gpu; touch x"}),
        "config: inference: slurm_partition: 'gpu; touch x' does not fit; give for example gpu",
    ),
    "a command among the scheduler's options": (
        small(inference={"slurm_extra": "--exclude=$(touch x)"}),
        "config: inference: slurm_extra: '--exclude=$(touch x)' does not fit; give for example "
        "--exclude=node7",
    ),
    "a model of no GPU": (
        small(inference={"gpu_model": "h200"}),
        "config: inference: gpu_model names a GPU, but no job requests one; set gpus_per_job: 1",
    ),
    "nothing to compare with": (
        small(strategies=["saliency"]),
        "config: strategies: add `full`, the unpruned model that all others are compared with",
    ),
    "weights from nowhere": (
        model(train=None),
        "config: models: entry 1: give exactly one source of weights: repo (+ revision), path or "
        "train",
    ),
    "weights from two places": (
        model(path="/models/x"),
        "config: models: entry 1: give exactly one source of weights: repo (+ revision), path or "
        "train",
    ),
    "a repository without a revision": (
        model(repo="a/b", train=None),
        "config: models: entry 1: give the revision (commit) of the repo, so that the study is "
        "pinned",
    ),
    "a revision without a repository": (
        model(revision="0" * 40),
        "config: models: entry 1: a revision belongs to a repo; remove it",
    ),
    "a branch for a commit": (
        model(repo="a/b", revision="main", train=None),
        "config: models, entry 1: revision: 'main' may name other files tomorrow; give the commit, "
        "40 digits from the repository's history on the Hub",
    ),
    "an empty path": (
        model(path="", train=None),
        "config: models, entry 1: path: the path is empty; give a path, or '.' for the working "
        "directory",
    ),
    "a data set's tag for a commit": (
        small(datasets=[{"name": "p", "loader": "pope", "revision": "v1.0"}]),
        "config: datasets: entry 1: pope: revision: 'v1.0' may name other files tomorrow; give the "
        "commit, 40 digits from the repository's history on the Hub",
    ),
    "an empty path of a data set": (
        small(datasets=[{"name": "p", "loader": "scienceqa", "path": " "}]),
        "config: datasets: entry 1: scienceqa: path: the path is empty; give a path, or '.' for "
        "the working directory",
    ),
    "a path without a value": (
        small(datasets=[{"name": "p", "loader": "scienceqa", "path": None}]),
        "config: datasets: entry 1: `path:` has no value; give one or remove the line",
    ),
    "a layer that no model has": (
        small(strategies=["full", {"strategy": "fastv", "layer": 10**6}]),
        "config: strategies: fastv: layer = 1000000 does not fit; give at most 1000",
    ),
    "a power under which every gain is zero": (
        small(strategies=["full", {"strategy": "scope", "alpha": 1e6}]),
        "config: strategies: scope: alpha = 1000000.0 does not fit; give at most 20.0",
    ),
    "threads of no machine": (
        small(inference={"threads": 10**9}),
        "config: inference: threads = 1000000000 does not fit; give at most 1024",
    ),
    "a seed of too many digits": (
        small(datasets=[{"name": "p", "loader": "digits-pope", "seed": 2**63}]),
        "config: datasets: entry 1: digits-pope: seed = 9223372036854775808 does not fit; give "
        "less than 9223372036854775808",
    ),
    "a name that would leave the folder": (
        model(name="../up"),
        "config: models, entry 1: name: '../up' cannot name a folder; begin with a letter or "
        "digit, go on with those, '.', '_' and '-', 100 in all, and take none of datasets, models, "
        "studies, scores, figures, tables, benchmark, results",
    ),
}


@pytest.mark.parametrize(("settings", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_setting_is_refused_in_one_sentence(settings, message):
    with pytest.raises(PrunecalError) as caught:
        load_study(settings)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "name", ["models", "scores", "figures", "Tables", ".hidden", "..", "a/b", "a b", ""]
)
@pytest.mark.parametrize("change", [model, dataset])
def test_a_name_that_is_reserved_or_no_folders_is_refused(change, name):
    with pytest.raises(PrunecalError, match="entry 1: name: .* cannot name a folder"):
        load_study(change(name=name))


@pytest.mark.parametrize("name", ["models", ".", "..", "a/b", "-x"])
def test_a_study_that_would_write_elsewhere_is_refused(name):
    with pytest.raises(PrunecalError, match="config: study: .* cannot name a folder"):
        load_study(small(study=name))


class Walked(list):
    """A list that may be walked through as often as it is named, not as often as it counts."""

    left = 1000

    def __iter__(self):
        Walked.left -= 1
        assert Walked.left > 0, "what stands at several places is walked through at each"
        return super().__iter__()


@pytest.mark.parametrize("inner", [list, lambda lists: [{"a": lists}]], ids=["lists", "mappings"])
@pytest.mark.parametrize("key", ["budgets", "title", "models", "unknown"])
def test_aliases_that_multiply_are_refused_without_being_written_out(inner, key, monkeypatch):
    monkeypatch.setattr(Walked, "left", 1000)
    bomb = Walked([1])
    for _ in range(9):
        bomb = Walked(inner([bomb] * 10))  # as YAML reads `[*l8, *l8, …]`
    with pytest.raises(PrunecalError, match="hold more than 1,000,000 values once YAML"):
        load_study(small(**{key: bomb}))


@pytest.mark.parametrize("settings", [{"title": "a\0"}, {"datasets": [{"name": {"\x1b": 1}}]}])
def test_control_characters_are_refused_wherever_they_stand(settings):
    with pytest.raises(PrunecalError, match="has the control character .*; remove it"):
        load_study(small(**settings))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: !!binary aGk=", "b'hi' is no setting"),
        ("budgets: !!set {3, 5}", "is no setting; give text, numbers or a list"),
        ('title: "\\udce9"', "is not UTF-8; rename the file that it names, or save"),
    ],
)
def test_values_that_yaml_alone_knows_are_refused(text, message):
    with pytest.raises(PrunecalError, match=message):
        load_study(small(**yaml.safe_load(text)))


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nbudgets: [3]\nb: {c: 1}\nbudgets: [5]",
        "b:\n  - {d: 1}\n  - {budgets: 1, c: 2, budgets: 3}",
        '{"budgets": 1, "budgets": 1}',
    ],
)
def test_a_key_that_is_repeated_is_refused_by_its_line(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(PrunecalError, match=r"study.yaml line \d repeats the key 'budgets' of li"):
        refuse_repeated_keys(path)
    path.write_text("x: &x {a: 1}\nw: &w {b: 1}\ny:\n  <<: *x\n  <<: *w")
    refuse_repeated_keys(path)
    path = tmp_path / "study.json"
    path.write_text('{"a": {"b": 1, "c": {"b": 2}}, "b": 3}')
    refuse_repeated_keys(path)
    path.write_text('{"a": {"b": 1, "b": 2}}')
    with pytest.raises(PrunecalError, match=r"study.json repeats the key 'b', whose first value"):
        refuse_repeated_keys(path)
    path.write_text("x: &x {a: 1, 'b': 2}\ny: {<<: *x, a: 3}\nz: *x\n[a]: 1")
    refuse_repeated_keys(path)
    path.write_text("[")  # is told by who reads it
    refuse_repeated_keys(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("budgets: [64, 010]", "line 1 has 010, which YAML reads as the number 8; write 8 if you"),
        ("a:\n  b: 1:30", "line 2 has 1:30, which YAML reads as the number 90"),
        ("a: {b: -1:30.5}", "has -1:30.5, which YAML reads as the number -90.5"),
        ("a: ['010', 0, 0x10, 08, 0.5, 1_000, '1:30', 10:99, 64]", None),
    ],
)
def test_a_number_that_yaml_reads_in_another_base_is_refused(tmp_path, text, words):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    if words is None:
        refuse_repeated_keys(path)
    else:
        with pytest.raises(PrunecalError, match=words):
            refuse_repeated_keys(path)


def test_a_setting_that_the_command_line_gives_twice_is_refused():
    sound = ["study=a", "title=b: [", "statistics={bins: 5}", "statistics={seed: 5, level: 0.9}"]
    refuse_repeated_settings(sound)
    for argument, words in (
        ("study=b", "--config gives 'study' twice"),
        ("statistics={seed: 6}", "--config gives 'statistics: seed' twice"),
    ):
        with pytest.raises(PrunecalError, match=words):
            refuse_repeated_settings([*sound, argument])


def test_an_alias_of_itself_is_refused():
    with pytest.raises(PrunecalError, match="hold more than 1,000,000 values once YAML"):
        load_study(small(budgets=yaml.safe_load("&a [*a]")))


@pytest.mark.parametrize("text", ["a/b", "a b", "{x}", "*", "", "ü", "a\n"])
def test_a_strategy_whose_parameters_cannot_name_a_folder_is_refused(text, monkeypatch):
    class Worded(Parameters):
        word: str = ""

    monkeypatch.setattr(plugins.load("strategies", "saliency"), "Params", Worded)
    entry = {"strategy": "saliency", "word": f"{text}!" if text == "" else text}
    with pytest.raises(PrunecalError, match="strategies: saliency: .* cannot name a folder"):
        load_study(strategy(entry))


def test_two_sources_of_a_data_set_are_refused():
    entry = {"name": "sqa", "loader": "scienceqa", "repo": "a/b", "revision": "c", "path": "x"}
    with pytest.raises(PrunecalError, match="entry 1: scienceqa: give one of repo, path"):
        load_study(small(datasets=[entry]))


def test_strategies_and_budgets_become_cells_with_full_first():
    study = load_study(
        small(strategies=["saliency", "full", {"strategy": "scope", "alpha": [0, 1]}])
    )
    found = [(cell.strategy, cell.budget) for cell in cells(study, study.models[0])]
    assert found == [
        ("full", 100),
        ("saliency", 20),
        ("saliency", 5),
        ("scope-alpha0", 20),
        ("scope-alpha0", 5),
        ("scope-alpha1", 20),
        ("scope-alpha1", 5),
    ]


def test_numbers_from_the_command_line_are_numbers():
    typed = small(statistics={"resamples": "200"}, budgets=["20", "5%"])  # as --config passes them
    study = load_study(typed)
    assert study == load_study(small(statistics={"resamples": 200}))
    assert json.dumps(study.model_dump()) == json.dumps(
        load_study(small(statistics={"resamples": 200})).model_dump()
    )


def test_several_sweeps_of_one_strategy_are_crossed():
    swept = {"strategy": "scope", "alpha": [0, 0.5], "gap_power": [1, 2], "positions": "original"}
    study = load_study(small(strategies=["full", swept], budgets=[3]))
    found = cells(study, study.models[0])[1:]
    assert [cell.strategy for cell in found] == [
        "scope-positionsoriginal-alpha0",
        "scope-positionsoriginal-alpha0-gap_power2",
        "scope-positionsoriginal-alpha0.5",
        "scope-positionsoriginal-alpha0.5-gap_power2",
    ]
    assert dict(found[1].parameters) == {
        "alpha": 0.0,
        "gap_power": 2.0,
        "positions": "original",
        "selection_dtype": "float32",
    }
    assert [cell.prunes for cell in found] == ["before_llm"] * 4


def test_questions_are_split_by_a_cell_of_the_study():
    split = {"outcome_of": {"strategy": "saliency", "budget": "20%"}}
    study = load_study(small(strategies=["full", "saliency"], budgets=[20], statistics=split))
    assert Design(study).outcome_of(study.models[0].name, study.datasets[0].name) == [
        "saliency",
        "20",
    ]
    assert Design(load_study(small())).outcome_of("m", "d") == []
    split = {"outcome_of": {"strategy": "salience", "budget": 20}}
    with pytest.raises(PrunecalError, match=r"outcome_of: .* \(did you mean 'saliency'\?\); name"):
        load_study(small(strategies=["full", "saliency"], budgets=[20], statistics=split))


def test_a_share_is_of_each_models_own_tokens():
    other = {"name": "other", "family": "llava", "visual_tokens": 576, "path": "x"}
    study = load_study(small(models=[*small()["models"], other], budgets=["25%"]))
    budgets = [cells(study, one)[-1].budget for one in study.models]
    assert budgets == [25, 144]


def test_a_cell_does_not_depend_on_how_its_numbers_are_written():
    def listed(alpha):
        study = load_study(strategy({"strategy": "scope", "alpha": alpha}))
        return [json.dumps(cell.settings()) for cell in cells(study, study.models[0])]

    assert listed(1) == listed(1.0)
    assert listed(0) == listed(-0.0)


def test_config_yaml_names_every_key():
    settings = read(ROOT / "config.yaml")
    # the embedded study has no folder of its own and imports nothing
    assert set(Study.model_fields) - set(settings) == {"study", "imported"}
    for block in ("inference", "statistics"):
        known = set(Study.model_fields[block].annotation.model_fields)
        assert set(settings[block]) <= known


@pytest.mark.parametrize("overlay", [None, *OVERLAYS], ids=lambda path: path and path.stem)
def test_every_study_fits_the_schema_and_loads(overlay):
    settings = merged(overlay) if overlay else read(ROOT / "config.yaml")
    jsonschema.validate(settings, json_schema())
    assert load_study(settings).title == settings["title"]


def test_the_papers_study_is_pinned_and_has_a_folder_of_its_own():
    study = load_study(merged(ROOT / "studies" / "llava-1.5-7b.yaml"))
    (llava,) = study.models
    assert (study.study, llava.visual_tokens, llava.dtype) == ("llava-1.5-7b", 576, "float16")
    assert len(llava.revision) == 40
    for entry in study.datasets:
        defaults = plugins.load("datasets", entry.loader).Params()
        assert entry.params() == defaults.model_dump(mode="json")
    assert {cell.budget for cell in cells(study, llava)} == {576, 64, 128, 192}


def test_the_schema_file_is_what_the_settings_say():
    written = json.loads(schema.FILE.read_text(encoding="utf-8"))
    assert written == json_schema(), "run `python -m prunecal.study.schema`"


def test_config_and_studies_point_editors_to_the_schema():
    for path in [ROOT / "config.yaml", *OVERLAYS]:
        first = path.read_text(encoding="utf-8").splitlines()[0]
        reference = first.removeprefix("# yaml-language-server: $schema=")
        assert (path.parent / reference).resolve() == schema.FILE, path


def test_the_schema_describes_every_key():
    lacking = []

    def walk(node, place):
        if isinstance(node, dict):
            for key, value in node.get("properties", {}).items():
                if not value.get("description"):
                    lacking.append(f"{place}.{key}")
            for key, value in node.items():
                walk(value, f"{place}.{key}")
        elif isinstance(node, list):
            for at, value in enumerate(node):
                walk(value, f"{place}.{at}")

    walk(json_schema(), "")
    assert lacking == []


def misfits():
    """Return settings that the schema can refuse: those with a wrong key, type or choice."""
    beyond = (
        "twice", "above", "share", "nothing to compare", "weights from", "without a rev", "NaN",
        "without a repository", "two models", "two data sets", "no number", "leave the folder",
        "when joined", "name that files", "comparison of two", "scheduler's", "model of no",
        "that the study lacks", "reads questions", "text tower of two", "name of a text tower",
    )  # fmt: skip
    return {
        name: settings
        for name, (settings, _) in REFUSED.items()
        if not any(part in name for part in beyond)
    }


@pytest.mark.parametrize("settings", misfits().values(), ids=misfits().keys())
def test_the_schema_refuses_what_the_loader_refuses(settings):
    validator = jsonschema.Draft202012Validator(json_schema())
    assert validator.is_valid(small())
    assert not validator.is_valid(settings)


def test_plugins_not_listed_anywhere_are_in_the_schema():
    text = json.dumps(json_schema())
    for folder in ("strategies", "datasets", "models", "recipes"):
        for name in plugins.names(folder):
            assert f'"{name}"' in text


def test_settings_are_not_changed_by_loading():
    settings = small()
    before = copy.deepcopy(settings)
    load_study(settings)
    assert settings == before


LIGHT = """
import sys, yaml
import prunecal.study.cells
prunecal.study.cells.load_study(yaml.safe_load(open(sys.argv[1])))
heavy = {"torch", "transformers", "pandas", "numpy", "pyarrow", "datasets", "sklearn", "matplotlib"}
print(*sorted(heavy & set(sys.modules)))
"""


def test_loading_a_study_is_light():
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, ROOT / "config.yaml"],
        cwd=ROOT / "workflow",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []
