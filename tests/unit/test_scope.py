"""SCOPE against the official function's numbers and against the definition, written directly."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecal.benchmark.ranking import plain_loop, worst_regret
from prunecal.core.errors import PrunecalError
from prunecal.strategies import Images, rank, rank_many, scope

VECTORS = Path(__file__).parent.parent / "vectors"
INPUTS = np.load(VECTORS / "selection_inputs.npz")
EXPECTED = np.load(VECTORS / "selection_expected.npz")
CERTIFIED = json.loads((VECTORS / "selection_expected.json").read_text())["certified_prefix"]
CASES = [
    (dataset, f"{dataset}/scope_gap_p{power}/alpha{alpha}", float(alpha), power)
    for dataset in ("S_pos", "T_tie")
    for power in (0.5, 1.0, 2.0, 3.0)
    for alpha in ("0", "0.5", "1.0")
]


def vectors(dataset):
    features = torch.from_numpy(INPUTS[f"{dataset}/features"])
    return features, torch.from_numpy(INPUTS[f"{dataset}/saliency"])


@pytest.mark.parametrize(("dataset", "key", "alpha", "gap_power"), CASES)
def test_order_equals_the_official_one_where_it_is_certified(dataset, key, alpha, gap_power):
    features, saliency = vectors(dataset)
    order = rank("scope", features, saliency, 64, alpha=alpha, gap_power=gap_power).numpy()
    for mine, official, certified in zip(order, EXPECTED[key], CERTIFIED[key], strict=True):
        assert mine[:certified].tolist() == official[:certified].tolist()
    if dataset == "T_tie" and gap_power != 0.5:
        # exact in any precision: ties to the lowest index, then the lowest unselected index
        assert order.tolist() == EXPECTED[key].tolist()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("gap_power", [0.5, 1.0, 2.0, 3.0])
def test_every_step_takes_the_largest_gain_in_float64(alpha, gap_power):
    features, saliency = vectors("S_pos")
    order = rank("scope", features, saliency, 64, alpha=alpha, gap_power=gap_power)
    assert worst_regret(order, features, saliency, alpha, gap_power) < 1e-4


def test_all_tokens_of_the_tied_set_come_in_the_official_order():
    features, saliency = vectors("T_tie")
    order = rank("scope", features, saliency, 100, alpha=1.0)
    assert order.tolist() == EXPECTED["T_tie/scope/alpha1.0_K=N"].tolist()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    tokens=st.integers(1, 24),
    directions=st.integers(1, 6),
    gap_power=st.sampled_from([1.0, 2.0, 3.0]),
    alpha=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
)
def test_exact_ties_duplicates_and_empty_tokens_follow_the_plain_loop(
    seed, tokens, directions, gap_power, alpha
):
    # Entries of four places in {-1/2, 0, 1/2} with norm 1 or 0: all arithmetic is exact, so that
    # the lazy and the plain order agree on every index, ties, negative cosines and zeros included.
    generator = np.random.default_rng(seed)
    pool = generator.choice([-0.5, 0.5], size=(directions, 4))
    pool[generator.random(directions) < 0.2] = 0
    features = torch.tensor(pool[generator.integers(directions, size=(3, tokens))]).float()
    saliency = torch.tensor(generator.choice([0.0, 0.0625, 0.25, 1.0], size=(3, tokens))).float()
    order = rank("scope", features, saliency, tokens, alpha=alpha, gap_power=gap_power)
    expected = plain_loop(features, saliency, tokens, alpha, gap_power)
    assert order.tolist() == expected.tolist()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    tokens=st.integers(2, 80),
    width=st.integers(1, 33),
    gap_power=st.sampled_from([0.3, 0.5, 1.0, 1.7, 2.0, 3.0]),
    alpha=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_random_features_pass_the_float64_replay(seed, tokens, width, gap_power, alpha):
    generator = torch.Generator().manual_seed(seed)
    # a common direction keeps gains well above round-off for at least half of the tokens
    features = torch.randn(4, tokens, width + 8, generator=generator) + 0.5
    saliency = torch.rand(4, tokens, generator=generator)
    order = rank("scope", features, saliency, (tokens + 1) // 2, alpha=alpha, gap_power=gap_power)
    assert worst_regret(order, features, saliency, alpha, gap_power) < 1e-4


def structural_ties():
    """Return features with positive cosines: late tokens gain from each other in pairs, and tie."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(24, 100, 48, generator=generator) + 0.6, torch.ones(24, 100)


def test_ties_at_alpha_0_go_to_the_lowest_index_as_in_whole_numbers():
    features, saliency = structural_ties()
    order = rank("scope", features, saliency, 100, alpha=0.0)
    unit = features.double().numpy()
    unit /= np.linalg.norm(unit, axis=2, keepdims=True)
    ties = 0
    for row, tokens in zip(order.tolist(), unit, strict=True):
        similarity = np.round(np.tril(tokens @ tokens.T) * 2**23).astype(np.int64)
        similarity += np.tril(similarity, -1).T
        covered = np.zeros(100, dtype=np.int64)
        left = list(range(100))
        for token in row:
            gains = np.maximum(similarity[left] - covered, 0).sum(axis=1)
            assert token == left[int(gains.argmax())]  # the first of several
            ties += (gains == gains.max()).sum() > 1
            left.remove(token)
            covered = np.maximum(covered, similarity[token])
    assert ties > 100


@pytest.mark.parametrize(
    "params",
    [
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"alpha": 0.0, "gap_power": 2.0},
        {"alpha": 0.0, "gap_power": 1.7},
        {"alpha": 0.0, "selection_dtype": "float16"},
    ],
)
def test_a_ranking_does_not_depend_on_the_order_of_additions(params):
    features, saliency = structural_ties()
    order = rank("scope", features, saliency, 100, **params)
    mixed = features[:, :, torch.randperm(48, generator=torch.Generator().manual_seed(0))]
    if "selection_dtype" in params:  # norms in half precision are not exact
        mixed = features
    assert torch.equal(order, rank("scope", mixed, saliency, 100, **params))
    alone = [
        rank("scope", features[i : i + 1], saliency[i : i + 1], 100, **params) for i in range(24)
    ]
    assert torch.equal(order, torch.cat(alone))


@pytest.mark.slow
def test_a_ranking_is_the_same_by_other_instructions_of_the_cpu(tmp_path):
    features, saliency = structural_ties()
    variants = [{"alpha": 0.0}, {"alpha": 0.5}, {"alpha": 0.0, "gap_power": 3.0}]
    script = (
        "import json, sys, numpy, torch\n"
        "from prunecal.strategies import rank_many\n"
        "inputs = map(torch.from_numpy, numpy.load(sys.argv[1]).values())\n"
        "orders = rank_many('scope', *inputs, 100, json.loads(sys.argv[2]))\n"
        "numpy.savez(sys.argv[3], *orders)\n"
    )
    inputs, result = tmp_path / "inputs.npz", tmp_path / "result.npz"
    np.savez(inputs, features, saliency)
    plain = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}
    plain |= {"OPENBLAS_CORETYPE": "Prescott", "OMP_NUM_THREADS": "2"}
    subprocess.run(
        [sys.executable, "-c", script, str(inputs), json.dumps(variants), str(result)],
        env={**os.environ, **plain},
        check=True,
    )
    expected = rank_many("scope", features, saliency, 100, variants)
    for order, other in zip(expected, np.load(result).values(), strict=True):
        assert order.tolist() == other.tolist()


def test_exhausted_coverage_goes_on_with_the_lowest_unselected_index():
    features = torch.eye(4)[[3, 1, 3, 1, 1, 3]].unsqueeze(0)
    order = rank("scope", features, torch.ones(1, 6), 6, alpha=0.0)
    assert order.tolist() == [[0, 1, 2, 3, 4, 5]]
    order = rank("scope", features, torch.tensor([[1.0, 1, 1, 1, 2, 1]]), 6)
    assert order.tolist() == [[4, 0, 1, 2, 3, 5]]


def test_pure_coverage_ignores_saliency_even_where_it_is_zero():
    features, saliency = vectors("S_pos")
    without = rank("scope", features, torch.zeros_like(saliency), 64, alpha=0.0)
    assert torch.equal(without, rank("scope", features, saliency, 64, alpha=0.0))


def test_variants_that_share_similarities_equal_those_ranked_alone():
    features, saliency = vectors("S_pos")
    variants = [
        scope.Params(alpha=alpha, gap_power=power, selection_dtype=dtype)
        for dtype in ("float32", "bfloat16")
        for power in (1.0, 2.0)
        for alpha in (0.0, 1.0)
    ]
    together = scope.rank_many(Images(features, saliency), 32, variants)
    for order, params in zip(together, variants, strict=True):
        alone = rank("scope", features, saliency, 32, **params.model_dump())
        assert torch.equal(order, alone)


def test_half_precision_changes_the_selected_sets_and_bfloat16_more_than_float16():
    features, saliency = vectors("S_pos")
    reference = rank("scope", features, saliency, 32, alpha=0.0)

    def overlap(dtype):
        half = rank("scope", features, saliency, 32, alpha=0.0, selection_dtype=dtype)
        pairs = [(set(a), set(b)) for a, b in zip(reference.tolist(), half.tolist(), strict=True)]
        return [len(a & b) / len(a | b) for a, b in pairs]

    # The official function keeps 75 to 100 % in float16 and far less in bfloat16.
    assert min(overlap("float16")) > 0.75
    assert sum(overlap("bfloat16")) < sum(overlap("float16")) < 4


def test_negative_saliency_is_refused_where_it_would_be_used():
    features, saliency = vectors("T_tie")
    with pytest.raises(PrunecalError, match="saliency is negative"):
        rank("scope", features, -saliency, 4)
    assert rank("scope", features, -saliency, 4, alpha=0.0).shape == (3, 4)


def test_the_number_of_threads_stays_as_it_was():
    before = torch.get_num_threads()
    rank("scope", *vectors("T_tie"), 4)
    assert torch.get_num_threads() == before
