"""A rank job covers several strategies; only those that the store lacks are ranked."""

import json
from argparse import Namespace

import numpy as np
import pytest
import torch

from prunecal import rank
from prunecal.caching.cell_store import RANKING_FILES, misplaced_cells, prune_rankings
from prunecal.core import plugins
from prunecal.core.errors import PrunecalError
from prunecal.storage import files
from prunecal.storage.arrays import write_arrays

STRATEGIES = (
    {"strategy": "random-seed0", "family": "random", "parameters": {"seed": 0}, "budgets": []},
    {"strategy": "saliency", "family": "saliency", "parameters": {}, "budgets": []},
    {"strategy": "vispruner", "family": "vispruner", "parameters": {}, "budgets": [2, 4]},
)
SEED = {"strategy": "random-seed1", "family": "random", "parameters": {"seed": 1}, "budgets": []}


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Return a function that runs a job and returns what it ranked."""
    generator = np.random.default_rng(0)
    features = tmp_path / "results" / "model" / "polls" / "features.safetensors"
    arrays = {
        "features": generator.normal(size=(3, 9, 4)).astype(np.float32),
        "saliency": generator.uniform(size=(3, 9)).astype(np.float32),
    }
    write_arrays(features, arrays, {"image_id": ["a", "b", "c"]})
    ranked, rank_plugin = [], rank.rank_plugin

    def noted(inputs, family, variants, budgets, out):
        ranked.extend((family, variant.get("seed")) for variant in variants)
        rank_plugin(inputs, family, variants, budgets, out)

    monkeypatch.setattr(rank, "rank_plugin", noted)

    def run(*strategies, code="c0de numbers prunecal.rank"):
        ranked.clear()
        monkeypatch.setattr(rank, "code_record", lambda *_: code)
        rank.main(
            Namespace(
                strategies=json.dumps(strategies),
                features=features,
                signals=[],
                questions=None,
                folder=features.parent,
                store=tmp_path / "results" / ".rankings",
                threads=1,
            )
        )
        return list(ranked)

    run.folder, run.features = features.parent, features
    return run


def test_only_a_strategy_that_is_new_or_changed_is_ranked(job):
    assert len(job(*STRATEGIES)) == 3
    before = {path: path.read_bytes() for path in job.folder.glob("*/ranking.safetensors")}
    assert len(before) == 3
    for path in before:
        path.unlink()  # as Snakemake does before it starts a job
    assert job(*STRATEGIES, SEED) == [("random", 1)]
    assert before == {path: path.read_bytes() for path in before}
    more = STRATEGIES[2] | {"budgets": [2, 3, 4]}
    assert job(*STRATEGIES[:2], more) == [("vispruner", None)]
    assert len(job(*STRATEGIES, code="0ther numbers prunecal.rank")) == 3


def test_strategies_that_are_ranked_together_have_the_same_bytes_as_alone(job):
    job(STRATEGIES[0], SEED)
    together = (job.folder / "random-seed1" / "ranking.safetensors").read_bytes()
    for path in job.folder.parents[1].glob(".rankings/*/*/*"):
        path.unlink()
    assert job(SEED) == [("random", 1)]
    assert (job.folder / "random-seed1" / "ranking.safetensors").read_bytes() == together


def test_a_ranking_names_its_own_code_and_sources(job):
    job(*STRATEGIES)
    path = job.folder / "saliency" / "ranking.safetensors"
    assert files.undamaged(path)
    assert files.code_of(path) == "c0de numbers prunecal.rank"
    assert list(files.sources_of(path)) == [job.features]


def test_a_damaged_or_misplaced_ranking_of_the_store_is_made_again(job):
    job(*STRATEGIES)
    store = job.folder.parents[1] / ".rankings"
    first, second = sorted(store.glob("*/*/ranking.safetensors"))[:2]
    first.write_bytes(second.read_bytes())
    assert len(job(*STRATEGIES)) == 1
    for name in RANKING_FILES:
        (first.with_name(name)).write_bytes(second.with_name(name).read_bytes())
        files.record(first.with_name(name))
    assert misplaced_cells(store, names=RANKING_FILES) == [first]
    assert len(job(*STRATEGIES)) == 1


def test_rankings_that_no_result_holds_are_pruned(job):
    job(*STRATEGIES, SEED)
    results = job.folder.parents[1]
    (job.folder / "random-seed1" / ".ranking.safetensors.sha256").unlink()
    assert prune_rankings(results / ".rankings", results) == (3, 1)
    assert job(*STRATEGIES, SEED) == [("random", 1)]


@pytest.mark.parametrize(
    "changed",
    [
        lambda images, budget: images.saliency * (budget - 8),  # of all 9 tokens downwards
        lambda images, _: images.saliency - images.saliency.mean(dim=0),
        lambda images, _: torch.rand(images.saliency.shape),
    ],
    ids=["budget", "company", "chance"],
)
def test_a_ranking_that_depends_on_more_than_its_image_is_refused(job, monkeypatch, changed):
    def wrong(images, budget, params):
        order = changed(images, budget).argsort(dim=1, descending=True, stable=True)
        return order[:, :budget]

    torch.manual_seed(0)
    monkeypatch.setattr(plugins.load("strategies", "saliency"), "rank", wrong)
    with pytest.raises(PrunecalError, match=r"ranks the image 'a' alone, .* prefix"):
        job(STRATEGIES[1])
    assert not list(job.folder.glob("*/ranking.safetensors"))
