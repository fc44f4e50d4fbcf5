"""DivPrune against the official function's numbers (see tests/vectors)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from prunecal.strategies import rank

VECTORS = Path(__file__).parent.parent / "vectors"
INPUTS = np.load(VECTORS / "selection_inputs.npz")
EXPECTED = np.load(VECTORS / "selection_expected.npz")
CERTIFIED = json.loads((VECTORS / "selection_expected.json").read_text())["certified_prefix"]


def order_of(dataset, budget=64):
    features = torch.from_numpy(INPUTS[f"{dataset}/features"])
    saliency = torch.from_numpy(INPUTS[f"{dataset}/saliency"])
    return rank("divprune", features, saliency, budget).tolist()


def test_order_equals_the_official_one_where_it_is_certified():
    key = "S_pos/divprune"
    for mine, official, certified in zip(
        order_of("S_pos"), EXPECTED[key].tolist(), CERTIFIED[key], strict=True
    ):
        assert certified > 50
        assert mine[:certified] == official[:certified]


def test_exact_ties_equal_the_official_order_until_it_repeats_a_token():
    for features, mine, official in zip(
        INPUTS["T_tie/features"],
        order_of("T_tie"),
        EXPECTED["T_tie/divprune"].tolist(),
        strict=True,
    ):
        repeats = [step for step, token in enumerate(official) if token in official[:step]]
        distinct = min(repeats, default=len(official))
        assert distinct == len(np.unique(features, axis=0))
        assert mine[:distinct] == official[:distinct]
        rest = mine[distinct:]
        assert rest == sorted(set(range(100)) - set(mine[:distinct]))[: len(rest)]


@pytest.mark.parametrize("budget", [2, 10])
def test_every_token_is_the_farthest_from_those_before_it(budget):
    features = INPUTS["S_pos/features"].astype(np.float64)
    for image, order in enumerate(order_of("S_pos", budget)):
        unit = features[image] / np.linalg.norm(features[image], axis=1, keepdims=True)
        distance = 1 - unit @ unit.T
        for step in range(1, budget):
            nearest = distance[order[:step]].min(axis=0)
            assert nearest[order[step]] >= (1 - 1e-5) * nearest.max()


def test_an_order_does_not_depend_on_the_order_of_additions():
    # The first token is one of the two farthest from all others, often each other's nearest: a tie.
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(200, 12, 48, generator=generator)
    order = rank("divprune", features, torch.ones(200, 12), 12)
    mixed = features[:, :, torch.randperm(48, generator=generator)]
    assert torch.equal(order, rank("divprune", mixed, torch.ones(200, 12), 12))
    unit = torch.nn.functional.normalize(features.double(), dim=2)
    nearest = (unit @ unit.transpose(1, 2)).topk(2, dim=2).values[:, :, 1]
    ties = (nearest - nearest.amin(dim=1, keepdim=True) < 1e-12).double()
    assert (ties.sum(dim=1) > 1).any()
    assert order[:, 0].tolist() == ties.argmax(dim=1).tolist()
