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
