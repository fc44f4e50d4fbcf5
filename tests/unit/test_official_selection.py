"""Strategies before the language model against the official code's numbers (see tests/vectors)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from prunecal.core.errors import PrunecalError
from prunecal.strategies import rank, reduce

VECTORS = Path(__file__).parents[1] / "vectors"
INPUTS = np.load(VECTORS / "selection_inputs.npz")
S_POS = {name: torch.from_numpy(INPUTS[f"S_pos/{name}"]) for name in (
    "features", "saliency", "head_attention", "metric", "cls", "image_embeds", "text_embeds",
)}  # fmt: skip
F, S = S_POS["features"], S_POS["saliency"]


def expected(name):
    return json.loads((VECTORS / f"{name}_expected.json").read_text())["cases"]


def numbers(name):
    return np.load(VECTORS / f"{name}_expected.npz")


@pytest.mark.parametrize("case", expected("vispruner"), ids=lambda case: case["key"])
def test_vispruner_keeps_the_official_sets(case):
    kept = rank("vispruner", F, S, case["budget"], important_ratio=case["important_ratio"])
    for mine, official, sure in zip(
        kept.tolist(), numbers("vispruner")[case["key"]].tolist(), case["f32_equals_f64"],
        strict=True,
    ):  # fmt: skip
        assert not sure or sorted(mine) == official


def test_vispruner_thins_an_odd_number_of_tokens():
    kept = rank("vispruner", F[:, :37], S[:, :37], 8, important_ratio=0.25)
    assert [len(set(row)) for row in kept.tolist()] == [8] * len(F)


@pytest.mark.parametrize("case", expected("hiprune"), ids=lambda case: case["key"])
def test_hiprune_keeps_the_official_sets(case):
    maps = {name: torch.from_numpy(values) for name, values in np.load(
        VECTORS / "hiprune_inputs.npz").items()}  # fmt: skip
    blank = torch.zeros(2, 576, 4)
    kept = rank("hiprune", blank, blank[..., 0], case["budget"], alpha=case["alpha"], **maps)
    official = numbers("hiprune")[case["key"]].tolist()
    assert kept.sort(dim=1).values.tolist() == official


@pytest.mark.parametrize("case", expected("cdpruner"), ids=lambda case: case["key"])
def test_cdpruner_selects_in_the_official_order(case):
    text = S_POS["text_embeds"][: case["text_segments"]]
    order = rank(
        "cdpruner", F, S, case["budget"], image_embeds=S_POS["image_embeds"], text_embeds=text
    )
    for mine, official, certified in zip(
        order.tolist(), numbers("cdpruner")[case["key"]].tolist(), case["certified_prefix"],
        strict=True,
    ):  # fmt: skip
        assert mine[:certified] == official[:certified]


def test_cdpruner_takes_the_mean_over_the_segments_that_a_text_has():
    embeds = {"image_embeds": S_POS["image_embeds"]}
    texts = S_POS["text_embeds"][:3].expand(len(F), -1, -1)
    padded = torch.cat((texts, torch.zeros_like(texts[:, :2])), dim=1)
    orders = [rank("cdpruner", F, S, 32, **embeds, text_embeds=one) for one in (texts, padded)]
    assert torch.equal(*orders)
    alone = [  # questions about one image, whose features are expanded
        rank(
            "cdpruner",
            F[:1].expand(4, -1, -1),
            S[:1].expand(4, -1),
            32,
            image_embeds=embeds["image_embeds"][:1].expand(4, -1, -1),
            text_embeds=S_POS["text_embeds"][:4, None],
        )[row]
        for row in range(4)
    ]
    for row, order in enumerate(alone):
        one = {"image_embeds": embeds["image_embeds"][:1]}
        text = S_POS["text_embeds"][row : row + 1]
        assert torch.equal(order, rank("cdpruner", F[:1], S[:1], 32, **one, text_embeds=text)[0])


def test_cdpruner_goes_on_with_the_lowest_tokens_where_the_rank_is_exhausted():
    text = S_POS["text_embeds"][:1]
    order = rank("cdpruner", F, S, 100, image_embeds=S_POS["image_embeds"], text_embeds=text)
    for row in order.tolist():
        assert sorted(row) == list(range(100))
        assert row[80:] == sorted(row[80:])  # 64 features span 64 dimensions


def assert_merges(name, key, tokens, weights, sources):
    """Compare weights with the official entries, and tokens with the sums that they stand for."""
    arrays = numbers(name)
    official = [np.zeros(tuple(one.shape)) for one in weights]
    for (image, output, source), value in zip(
        arrays[f"{key}/entries"].tolist(), arrays[f"{key}/weights"].tolist(), strict=True
    ):
        official[image][output, source] = value
    for mine, theirs, token, source in zip(weights, official, tokens, sources, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
        wanted = theirs @ source.double().numpy()
        np.testing.assert_allclose(token, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("case", expected("visionzip"), ids=lambda case: case["key"])
def test_visionzip_merges_as_the_official_code(case):
    tokens, weights = reduce(
        "visionzip", F, S, case["budget"], cls=S_POS["cls"], keys=S_POS["metric"],
        contextual=case["contextual"],
    )  # fmt: skip
    assert_merges("visionzip", case["key"], tokens, weights, torch.cat((S_POS["cls"], F), dim=1))


@pytest.mark.parametrize("case", expected("trim")[:2], ids=lambda case: case["key"])
def test_trim_merges_as_the_official_code(case):
    texts = S_POS["text_embeds"][torch.arange(len(F)) % len(S_POS["text_embeds"])]
    tokens, weights = reduce(
        "trim", F, S, case["budget"], image_embeds=S_POS["image_embeds"], text_embeds=texts
    )
    sources = torch.cat((torch.zeros_like(F[:, :1]), F), dim=1)
    assert_merges("trim", case["key"], tokens, weights, sources)


def test_trims_own_number_of_tokens_is_the_official_one():
    texts = S_POS["text_embeds"][torch.arange(len(F)) % len(S_POS["text_embeds"])]
    embeds = {"image_embeds": S_POS["image_embeds"], "text_embeds": texts}
    tokens, weights = reduce("trim", F, S, None, **embeds)
    (official,) = (case["adaptive_total_tokens"] for case in expected("trim")[2:])
    assert [len(one) for one in tokens] == [len(one) for one in weights] == official
    for image, own in enumerate(weights):
        fixed = reduce("trim", F, S, official[image], **embeds)[1][image]
        assert torch.equal(own, fixed)


@pytest.mark.parametrize("case", expected("prumerge"), ids=lambda case: case["key"])
def test_prumerge_merges_as_the_official_code(case):
    own = np.load(VECTORS / "prumerge_inputs.npz")
    name = case["set"]
    queries = torch.from_numpy(own[f"{name}/q_cls"])
    keys = S_POS["metric"] if name == "S_pos" else torch.from_numpy(own[f"{name}/keys"])
    features = F if name == "S_pos" else torch.ones(1, 576, 4)
    saliency = S if name == "S_pos" else torch.ones(1, 576)
    budget = None if case["adaptive"] else case["tokens"][0]
    tokens, weights = reduce(
        "prumerge", features, saliency, budget, cls_queries=queries, keys=keys, plus=case["plus"]
    )
    assert [len(one) for one in weights] == case["tokens"]
    sources = torch.cat((torch.zeros_like(features[:, :1]), features), dim=1)
    assert_merges("prumerge", case["key"], tokens, weights, sources)


def test_a_missing_signal_is_named():
    with pytest.raises(PrunecalError, match="visionzip: keys is missing; pass it by that name"):
        reduce("visionzip", F, S, 8, cls=S_POS["cls"])
