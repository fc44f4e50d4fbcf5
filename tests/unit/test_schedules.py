"""Budgets that are matched by cost, for every strategy inside the decoder that is registered."""

import pytest

from prunecal.core import plugins
from prunecal.core.errors import PrunecalError
from prunecal.engine.stages import check
from prunecal.figures import naming
from prunecal.study import schedules
from prunecal.study.cells import cells, load_study
from prunecal.study.schedules import FLOPS, KEPT, MEAN_TOKENS, Shape

INSIDE = [
    name
    for name in plugins.names("strategies")
    if plugins.load("strategies", name).PRUNES == "inside_llm"
]
LLAMA_7B = Shape(32, 4096, 4096, 4096, 11008)
N, BUDGET = 576, 192


def stages(family, match, budget=BUDGET, shape=LLAMA_7B):
    strategy = plugins.load("strategies", family)
    params = strategy.Params()

    def of(left):
        return strategy.stages(N, left, shape.layers, params)

    return schedules.matched(of, match, budget, N, shape)


def layer_by_layer(listed, shape):
    """Return the tokens of every layer that runs, a first pass included, and those that count.

    By walking through the layers as the engine does.
    """
    passes = []
    if listed[0].cut < listed[0].look:
        passes = [N] * listed[0].look
    tokens, cuts = N, {stage.cut: stage.keep + stage.merge for stage in listed}
    counted = []
    for layer in range(shape.layers):
        tokens = cuts.get(layer, tokens)
        counted.append(tokens)
    return passes + counted, counted


def operations(tokens, shape):
    """Return a layer's operations as FastV's paper writes them, times two, with a gated MLP."""
    n, d, m = tokens, shape.width, shape.intermediate
    return 2 * (4 * n * d * d + 2 * n * n * d + 3 * n * d * m)


@pytest.mark.parametrize("family", INSIDE)
def test_a_matched_budget_costs_what_a_ranking_costs(family):
    by_tokens, by_flops = (stages(family, match) for match in (MEAN_TOKENS, FLOPS))
    for listed in (by_tokens, by_flops):
        check(listed, N, LLAMA_7B.layers)
    _, counted = layer_by_layer(by_tokens, LLAMA_7B)
    assert sum(counted) / 32 == pytest.approx(BUDGET, abs=0.5)
    assert schedules.tokens_per_layer(by_tokens, N, 32) == sum(counted) / 32
    every, _ = layer_by_layer(by_flops, LLAMA_7B)
    whole = sum(operations(tokens, LLAMA_7B) for tokens in every)
    assert whole == pytest.approx(32 * operations(BUDGET, LLAMA_7B), rel=0.005)


@pytest.mark.parametrize("family", INSIDE)
def test_the_budget_of_all_tokens_drops_none(family):
    listed = stages(family, MEAN_TOKENS, budget=N)
    assert {stage.entering for stage in listed} == {N}


def test_fastv_meets_the_closed_form():
    (stage,) = stages("fastv", MEAN_TOKENS)
    assert stage.keep == round((BUDGET * 32 - 2 * N) / 30)


def settings(strategies, budgets, **model):
    one = {"name": "m", "family": "llava", "visual_tokens": N, "path": "x", "layers": 32}
    return {
        "title": "t",
        "models": [one | model],
        "datasets": [{"name": "d", "loader": "digits-pope"}],
        "strategies": ["full", *strategies],
        "budgets": budgets,
    }


def listed(*given, **model):
    study = load_study(settings(*given, **model))
    return cells(study, study.models[0])[1:]


def test_the_study_or_a_strategy_says_what_is_matched():
    own = {"strategy": "fastv", "match": ["kept", "mean_tokens"]}
    found = listed(["saliency", "pdrop", own], {"tokens": ["50%"], "match": "flops"})
    assert [(cell.strategy, cell.budget) for cell in found] == [
        ("saliency", 288),
        ("pdrop-matchflops", 288),
        ("fastv-layer2", 288),
        ("fastv-layer2-matchmean_tokens", 288),
    ]
    assert [dict(cell.parameters).get("match", KEPT) for cell in found[1:]] == [
        FLOPS,
        KEPT,
        MEAN_TOKENS,
    ]
    siblings = [dict(cell.parameters) for cell in found[2:]]
    names = [naming.strategy_name("fastv", one, siblings) for one in siblings]
    assert names == ["FastV", "FastV matched by mean tokens"]


@pytest.mark.parametrize(
    ("strategies", "budgets", "model", "message"),
    [
        (["pdrop"], {"tokens": [128], "match": "flops"}, {}, r"pdrop-matchflops: .*163\.5 a layer"),
        (["fastv"], {"tokens": [64], "match": "flops"}, {"layers": None}, "m lacks `layers:`"),
        (["fastv"], {"tokens": [64], "match": "flop"}, {}, 'match = "flop" does not fit; give'),
        (["fastv"], {"match": "flops"}, {}, "budgets: tokens is missing; add it"),
        (["fastv"], {"tokens": [0], "match": "flops"}, {}, "0 visual tokens are not between"),
        ([{"strategy": "fastv", "match": "flop"}], [64], {}, "did you mean 'flops'"),
        ([{"strategy": "saliency", "match": "flops"}], [64], {}, "before it as many tokens enter"),
    ],
)
def test_what_cannot_be_matched_is_refused_in_one_sentence(strategies, budgets, model, message):
    with pytest.raises(PrunecalError, match=message) as caught:
        listed(strategies, budgets, **model)
    assert str(caught.value).startswith("config: ")


def test_a_smaller_image_is_refused_where_it_has_as_many_tokens():
    with pytest.raises(PrunecalError, match=r"downsample needs images .* of model 'm' \(llava\)"):
        listed(["downsample"], [64])
    qwen = {"family": "qwen2-5-vl", "visual_tokens": None, "template": "qwen_vl-lmms"}
    (cell,) = listed(["downsample"], ["25%"], **qwen)
    assert (cell.strategy, cell.budget) == ("downsample", "25%")


def test_pyramid_drop_begins_earlier_where_its_own_layers_cost_too_much():
    found = listed([{"strategy": "pdrop", "layer": 2}], {"tokens": [64], "match": "flops"})
    assert [cell.strategy for cell in found] == ["pdrop-layer2-matchflops"]
