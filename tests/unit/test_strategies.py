"""What must hold for every strategy that ranks vision features, whichever are registered."""

import hashlib

import pytest
import torch

from prunecal.core import plugins
from prunecal.core.errors import PrunecalError
from prunecal.engine.coverage import (
    cosine_similarity,
    coverage,
    coverage_curve,
    coverage_of_sets,
)
from prunecal.strategies import rank, rank_many, reduce

BEFORE = [
    name
    for name in plugins.names("strategies")
    if plugins.load("strategies", name).PRUNES == "before_llm"
]
MERGING = [name for name in BEFORE if hasattr(plugins.load("strategies", name), "merge")]
VISION = [name for name in BEFORE if name not in MERGING]
IMAGES, TOKENS, WIDTH = 5, 37, 11
IDS = ["COCO_1", "COCO_2", "a", "b", "ü"]


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(IMAGES, TOKENS, WIDTH, generator=generator) + 0.3
    saliency = torch.rand(IMAGES, TOKENS, generator=generator).round(decimals=1)  # with ties
    return features, saliency


@pytest.fixture(params=VISION)
def strategy(request):
    return request.param


@pytest.fixture(params=MERGING)
def merging(request):
    return request.param


def extras(strategy):
    """Return what a strategy reads beside features and saliency, and the images' ids."""
    generator = torch.Generator().manual_seed(2)
    shapes = {
        "cls": (IMAGES, 1, WIDTH),
        "keys": (IMAGES, TOKENS + 1, 6),
        "attention": (IMAGES, TOKENS),
        "early_attention": (IMAGES, TOKENS),
        "last_keys": (IMAGES, TOKENS + 1, 6),
        "last_cls_query": (IMAGES, 1, 6),
        "image_embeds": (IMAGES, TOKENS, 7),
        "text_embeds": (IMAGES, 7),
        "text_segments": (IMAGES, 2, 7),
        "projected_similarity": (IMAGES, TOKENS, TOKENS),
    }
    reads = plugins.declared("strategies", plugins.load("strategies", strategy), "READS")
    signals = {
        name: torch.rand(shapes[signal], generator=generator) for name, signal in reads.items()
    }
    return signals | {"image_ids": IDS}


def some(given, images):
    """Return the extras of some images."""
    return {
        name: [value[at] for at in images] if isinstance(value, list) else value[images]
        for name, value in given.items()
    }


def test_the_strategies_of_the_study_are_registered():
    assert {"full", "random", "saliency", "scope"} <= set(VISION)


def test_budget_of_all_tokens_is_a_permutation(strategy, inputs):
    order = rank(strategy, *inputs, TOKENS, **extras(strategy))
    assert order.dtype == torch.int64
    assert order.sort(dim=1).values.tolist() == [list(range(TOKENS))] * IMAGES


@pytest.mark.parametrize("strategy", ["cdpruner", "divprune"])
def test_projected_tokens_are_compared_if_the_settings_say_so(strategy, inputs):
    features, saliency = inputs
    given = extras(strategy) | {"similarity": cosine_similarity(features.flip(1))}
    projected = rank(strategy, features, saliency, 9, **given, space="projected")
    if strategy == "cdpruner":  # the question's relevance stays with its token
        given["image_embeds"] = given["image_embeds"].flip(1)
    as_features = rank(strategy, features.flip(1), saliency, 9, **given)
    if strategy == "divprune":
        assert torch.equal(projected, as_features)
    del given["similarity"]
    with pytest.raises(PrunecalError, match=f"{strategy}: similarity is missing"):
        rank(strategy, features, saliency, 9, **given, space="projected")


def test_settings_ranked_together_give_what_each_gives_alone(strategy, inputs):
    every = plugins.load("strategies", strategy).Params.model_fields
    variants = [{}, {"positions": "original"} if "positions" in every else {}]
    given = extras(strategy)
    ids = given.pop("image_ids")
    together = rank_many(strategy, *inputs, 9, variants, ids, given)
    alone = [rank(strategy, *inputs, 9, **extras(strategy), **variant) for variant in variants]
    assert len(together) == len(alone)
    assert all(torch.equal(one, other) for one, other in zip(together, alone, strict=True))


@pytest.mark.parametrize("budget", [1, 9, 36])
def test_exactly_the_budget_is_kept_and_nested_budgets_are_prefixes(strategy, inputs, budget):
    order = rank(strategy, *inputs, budget, **extras(strategy))
    assert order.shape == (IMAGES, budget)
    assert all(len(set(row)) == budget for row in order.tolist())
    if plugins.declared("strategies", plugins.load("strategies", strategy), "NESTED"):
        every = rank(strategy, *inputs, TOKENS, **extras(strategy))
        assert torch.equal(order, every[:, :budget])


def test_neither_the_order_nor_the_company_of_a_batch_changes_a_row(strategy, inputs):
    features, saliency = inputs
    given = extras(strategy)
    order = rank(strategy, features, saliency, 20, **given)
    shuffled = [3, 0, 4, 1, 2]
    again = rank(strategy, features[shuffled], saliency[shuffled], 20, **some(given, shuffled))
    assert torch.equal(again, order[shuffled])
    for image in range(IMAGES):
        alone = rank(strategy, features[[image]], saliency[[image]], 20, **some(given, [image]))
        assert torch.equal(alone, order[[image]])


def test_the_same_inputs_give_the_same_bytes_whatever_the_global_generator_holds(strategy, inputs):
    order = rank(strategy, *inputs, TOKENS, **extras(strategy))
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert torch.equal(order, rank(strategy, *inputs, TOKENS, **extras(strategy)))
    assert torch.equal(before, torch.get_rng_state())


def test_inputs_are_left_as_they_were(strategy, inputs):
    copies = [values.clone() for values in inputs]
    rank(strategy, *inputs, TOKENS, **extras(strategy))
    assert all(torch.equal(a, b) for a, b in zip(inputs, copies, strict=True))


@pytest.mark.parametrize("budget", [1, 2, 9, TOKENS])
def test_merging_gives_exactly_the_budget_of_tokens_that_hold_something(merging, inputs, budget):
    features, _ = inputs
    tokens, weights = reduce(merging, *inputs, budget, **extras(merging))
    assert tokens.shape == (IMAGES, budget, WIDTH)
    assert weights.shape == (IMAGES, budget, TOKENS + 1)
    assert (weights >= 0).all()
    cls = extras(merging).get("cls", torch.zeros(IMAGES, 1, WIDTH))
    torch.testing.assert_close(tokens, weights @ torch.cat((cls, features), dim=1))


def test_merging_depends_on_no_other_image_and_leaves_its_inputs(merging, inputs):
    features, saliency = inputs
    given, copies = extras(merging), [values.clone() for values in inputs]
    _, weights = reduce(merging, features, saliency, 9, **given)
    assert all(torch.equal(a, b) for a, b in zip(inputs, copies, strict=True))
    assert torch.equal(weights, reduce(merging, features, saliency, 9, **given)[1])
    for image in range(IMAGES):
        _, alone = reduce(merging, features[[image]], saliency[[image]], 9, **some(given, [image]))
        assert torch.equal(alone, weights[[image]])


def test_pooling_to_all_tokens_changes_none_and_to_fewer_averages_squares(inputs):
    features = inputs[0][:, :36]
    saliency = inputs[1][:, :36]
    tokens, _ = reduce("pool", features, saliency, 36)
    torch.testing.assert_close(tokens, features)
    tokens, _ = reduce("pool", features, saliency, 9)
    grid = features.unflatten(1, (3, 2, 3, 2)).mean(dim=(2, 4)).flatten(1, 2)
    torch.testing.assert_close(tokens, grid)


@pytest.mark.parametrize("tokens", [36, 100, 576, 37])
def test_uniform_sampling_keeps_different_patches_at_every_budget(tokens):
    blank = torch.zeros(1, tokens, 1)
    for budget in range(1, tokens + 1):
        (kept,) = rank("uniform", blank, blank[..., 0], budget).tolist()
        assert kept == sorted(set(kept))
    assert rank("uniform", blank, blank[..., 0], tokens)[0].tolist() == list(range(tokens))


def test_reducing_by_a_ranking_gives_its_tokens_in_raster_order(inputs):
    features, _ = inputs
    tokens, weights = reduce("saliency", *inputs, 5)
    kept = rank("saliency", *inputs, 5).sort(dim=1).values
    assert torch.equal(tokens, features.gather(1, kept[..., None].expand(-1, -1, WIDTH)))
    assert weights[:, :, 1:].argmax(dim=2).tolist() == kept.tolist()


def test_full_keeps_raster_order(inputs):
    assert rank("full", *inputs, TOKENS).tolist() == [list(range(TOKENS))] * IMAGES


def test_saliency_sorts_downwards_with_the_lowest_index_first_on_a_tie(inputs):
    features, saliency = inputs
    order = rank("saliency", features, saliency, TOKENS)
    for row, values in zip(order.tolist(), saliency.tolist(), strict=True):
        assert row == sorted(range(TOKENS), key=lambda token: (-values[token], token))


def test_random_depends_on_seed_and_image_id_alone(inputs):
    features, saliency = inputs
    order = rank("random", features, saliency, TOKENS, seed=3, image_ids=IDS)
    other = rank("random", -features, saliency.flip(1), TOKENS, seed=3, image_ids=IDS)
    assert torch.equal(order, other)
    assert len({tuple(row) for row in order.tolist()}) == IMAGES
    reseeded = rank("random", features, saliency, TOKENS, seed=4, image_ids=IDS)
    assert not (order == reseeded).all(dim=1).any()
    renamed = rank("random", features, saliency, TOKENS, seed=3, image_ids=IDS[::-1])
    assert torch.equal(renamed, order.flip(0))


def test_random_stays_what_it_was_in_earlier_versions():
    order = rank("random", torch.zeros(1, 576, 1), torch.zeros(1, 576), 576, image_ids=["x"])
    assert order[0, :6].tolist() == [32, 279, 483, 464, 221, 44]
    assert hashlib.sha256(order.numpy().tobytes()).hexdigest().startswith("f01384aeb272bb80")


def test_random_places_every_token_equally_often():
    images = 4000
    ids = [str(image) for image in range(images)]
    order = rank("random", torch.zeros(images, 8, 1), torch.zeros(images, 8), 8, image_ids=ids)
    counts = torch.stack([(order == token).sum(dim=0) for token in range(8)]).double()
    # 7/8: the cells of permutation matrices vary less than independent ones, by (m - 1) / m
    chi_squared = 7 / 8 * float(((counts - images / 8) ** 2 / (images / 8)).sum())
    assert chi_squared < 85.4  # 49 degrees of freedom, 0.1 % level; the seed is fixed


def test_random_without_image_ids_is_refused(inputs):
    with pytest.raises(PrunecalError, match="image_ids is missing"):
        rank("random", *inputs, 4)


def test_bad_input_is_refused_with_the_name_of_what_is_wrong(inputs):
    features, saliency = inputs
    broken = saliency.clone()
    broken[2, 5] = torch.nan
    infinite = features.clone()
    infinite[4, 0, 0] = torch.inf
    for message, call in {
        r"'scoop' is unknown \(did you mean 'scope'\?\)": ("scoop", features, saliency, 4, {}),
        r"'alfa' is unknown \(did you mean 'alpha'\?\)": (
            "scope", features, saliency, 4, {"alfa": 1},
        ),
        "alpha = -1": ("scope", features, saliency, 4, {"alpha": -1}),
        "gap_power = 0": ("scope", features, saliency, 4, {"gap_power": 0}),
        "budget 0 is out of range; .* 1 to 37": ("scope", features, saliency, 0, {}),
        "budget 38 is out of range": ("full", features, saliency, 38, {}),
        "budget 2.5 is not a whole number": ("scope", features, saliency, 2.5, {}),
        "features are no tensor but of the type ndarray; give torch.as_tensor": (
            "scope", features.numpy(), saliency, 4, {},
        ),
        "features have shape": ("scope", features[0], saliency, 4, {}),
        r"saliency has shape \[5, 36\]": ("scope", features, saliency[:, 1:], 4, {}),
        "image 2 has NaN or infinite saliency": ("saliency", features, broken, 4, {}),
        "image ü has NaN or infinite feat": ("scope", infinite, saliency, 4, {"image_ids": IDS}),
        "2 image_ids for 5 images": ("random", features, saliency, 4, {"image_ids": IDS[:2]}),
    }.items():  # fmt: skip
        strategy, *arguments, params = call
        with pytest.raises(PrunecalError, match=message):
            rank(strategy, *arguments, **params)


def test_strategies_that_rank_inside_the_decoder_are_refused(inputs):
    inside = sorted(set(plugins.names("strategies")) - set(BEFORE))
    for strategy in inside:
        with pytest.raises(PrunecalError, match="inside the language model"):
            rank(strategy, *inputs, 4)


def slow_coverage(features, kept):
    """Compute coverage token by token with torch's own cosine."""
    cosine = torch.nn.functional.cosine_similarity
    best = [max(float(cosine(token, features[j], dim=0)) for j in kept) for token in features]
    return sum(best) / len(best)


def test_coverage_is_the_mean_over_tokens_of_the_best_cosine(inputs):
    features, _ = inputs
    kept = rank("random", *inputs, 6, image_ids=IDS)
    expected = [slow_coverage(*pair) for pair in zip(features, kept.tolist(), strict=True)]
    mask = torch.zeros(IMAGES, TOKENS, dtype=torch.bool).scatter_(1, kept, value=True)
    for found in (coverage(features, kept), coverage(features, mask)):
        assert found.dtype == torch.float32
        assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_coverage_of_many_sets_per_image_equals_that_of_each_alone(inputs):
    features, _ = inputs
    image = torch.tensor([4, 0, 0, 2, 4, 1, 3])
    ids = [str(question) for question in range(len(image))]
    kept = rank("random", features[image], torch.zeros(7, TOKENS), 5, image_ids=ids)
    similarity = cosine_similarity(features)
    expected = coverage(features[image], kept)
    found = coverage_of_sets(similarity, kept, image)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    mask = torch.zeros(7, TOKENS, dtype=torch.bool).scatter_(1, kept, value=True)
    assert torch.equal(coverage_of_sets(similarity, mask, image), found)


def test_coverage_curve_holds_the_coverage_of_every_prefix(inputs):
    features, _ = inputs
    order = rank("random", *inputs, TOKENS, image_ids=IDS)
    curve = coverage_curve(cosine_similarity(features), order)
    assert curve.dtype == torch.float32
    for budget in range(1, TOKENS + 1):
        expected = coverage(features, order[:, :budget])
        assert curve[:, budget - 1].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_coverage_by_all_tokens_is_one_and_a_zero_token_is_similar_to_none(inputs):
    features, _ = inputs
    everything = torch.ones(IMAGES, TOKENS, dtype=torch.bool)
    assert coverage(features, everything).tolist() == pytest.approx([1.0] * IMAGES)
    features[0, 0] = 0
    assert cosine_similarity(features)[0, 0].abs().max() == 0
    assert float(coverage(features, everything)[0]) == pytest.approx(1 - 1 / TOKENS)


def test_coverage_of_an_empty_set_is_refused(inputs):
    features, _ = inputs
    with pytest.raises(PrunecalError, match="kept set is empty"):
        coverage(features, torch.zeros(IMAGES, TOKENS, dtype=torch.bool))
    with pytest.raises(PrunecalError, match="2 kept sets for 5 images"):
        coverage(features, torch.ones(2, TOKENS, dtype=torch.bool))
    with pytest.raises(PrunecalError, match="1 kept sets for 2 image indices"):
        coverage_of_sets(
            cosine_similarity(features), torch.zeros(1, 3, dtype=torch.int64), torch.tensor([0, 1])
        )
