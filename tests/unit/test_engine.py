import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from helpers.tiny_llava import encoded, picture, questions, tiny_llava
from prunecal.core import plugins
from prunecal.core.errors import PrunecalError
from prunecal.engine import decoder, unpruned
from prunecal.engine.answers import patches_per_row
from prunecal.engine.coverage import coverage
from prunecal.engine.merged import Merged
from prunecal.engine.options import OptionTokens
from prunecal.engine.session import Session
from prunecal.models.llava import Llava
from prunecal.storage.arrays import write_tensors
from prunecal.strategies import rank, reduce
from prunecal.study.prompts import conversation

N = 16
SETTINGS = {"visual_tokens": N, "template": "vicuna_v1", "image": "pad", "dtype": "float32"}
VISION = ["full", "random", "saliency", "scope"]
INSIDE = [
    name
    for name in plugins.names("strategies")
    if plugins.load("strategies", name).PRUNES == "inside_llm"
]


@pytest.fixture(scope="module", params=[4, 2], ids=["heads", "grouped-heads"])
def llava(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    tiny_llava(folder, kv_heads=request.param)
    return Llava(folder, SETTINGS, torch.device("cpu"))


@pytest.fixture(scope="module")
def asked():
    return questions()


@pytest.fixture(scope="module")
def features(llava, tmp_path_factory):
    path = tmp_path_factory.mktemp("features") / "features.safetensors"
    with torch.inference_mode():
        tokens, saliency = encoded(llava, [picture(seed) for seed in range(3)])
    ids = [f"image{at}" for at in range(3)]
    arrays = {"features": tokens.contiguous(), "saliency": saliency}
    write_tensors(path, arrays, {"image_id": ids})
    return path


def run(session, family, budget, **parameters):
    strategy = plugins.load("strategies", family)
    params = strategy.Params(**parameters)
    if strategy.PRUNES == "inside_llm":
        return session.run(strategy, params, budget, None, None)
    order = order_of(session, family, budget, parameters)
    coverage = np.zeros(3, np.float32)
    return session.run(strategy, params, budget, order, coverage)


def order_of(session, family, budget, parameters):
    saliency = torch.rand(3, N, generator=torch.Generator().manual_seed(0))
    ids = [f"image{at}" for at in range(3)]
    order = rank(
        family,
        torch.stack(list(session.visual.features)),
        saliency,
        budget,
        image_ids=ids,
        **parameters,
    )
    return order.to(torch.int16).numpy()


def plain_logits(llava, features, kept, text, options, *, compact):
    """Logits by transformers' own forward on one prompt with some visual tokens kept.

    Those of the options, or of the whole vocabulary where these are None.
    """
    ids = llava.tokenizer(conversation("vicuna_v1", text))["input_ids"]
    at = ids.index(llava.model.config.image_token_id)
    embed = llava.model.get_input_embeddings()
    visual = llava.model.model.multi_modal_projector(features[kept])
    before, after = embed(torch.tensor(ids[:at])), embed(torch.tensor(ids[at + 1 :]))
    embeds = torch.cat((before, visual, after))[None]
    places = torch.arange(len(kept)) if compact else kept
    end = len(kept) if compact else N
    positions = torch.cat((torch.arange(at), at + places, at + end + torch.arange(len(after))))
    logits = llava.model(inputs_embeds=embeds, position_ids=positions[None]).logits[0, -1]
    if options is None:
        return logits.detach().numpy()
    return logits[llava.option_tokens(text, options)].detach().numpy()


def plain_fastv(llava, features, text, options, budget, layer):
    """Option logits of FastV in place, one prompt at a time, through transformers' own layers."""
    ids = llava.tokenizer(conversation("vicuna_v1", text))["input_ids"]
    at = ids.index(llava.model.config.image_token_id)
    embed, backbone = llava.model.get_input_embeddings(), llava.model.model.language_model
    visual = llava.model.model.multi_modal_projector(features)
    before, after = embed(torch.tensor(ids[:at])), embed(torch.tensor(ids[at + 1 :]))
    states = torch.cat((before, visual, after))[None]
    positions = torch.arange(states.shape[1])[None]
    for number, block in enumerate(backbone.layers):
        if number == layer:
            attention = scores[0].mean(0)[-1]  # noqa: F821  assigned in the layer before
            best = attention[at : at + N].topk(budget).indices.sort().values + at
            seen = torch.cat((torch.arange(at), best, torch.arange(at + N, states.shape[1])))
            states, positions = states[:, seen], positions[:, seen]
        rotary = backbone.rotary_emb(states, positions)
        length = states.shape[1]
        mask = torch.full((1, 1, length, length), -torch.inf).triu(1)
        backbone.config._attn_implementation = "eager"
        normed = block.input_layernorm(states)
        _, scores = block.self_attn(normed, position_embeddings=rotary, attention_mask=mask)
        states = block(
            states, attention_mask=mask, position_ids=positions, position_embeddings=rotary
        )
    backbone.config._attn_implementation = "sdpa"
    logits = llava.model.lm_head(backbone.norm(states))[0, -1]
    return logits[llava.option_tokens(text, options)].detach().numpy()


@pytest.mark.parametrize(
    ("family", "positions"),
    [
        ("full", "compact"),  # it drops none, so both are the same
        *((family, positions) for family in VISION[1:] for positions in ("compact", "original")),
    ],
)
def test_vision_side_strategies_equal_the_plain_forward(llava, features, asked, family, positions):
    session = Session(llava, asked, features, batch_tokens=512)
    budget = N if family == "full" else 5
    parameters = {} if family == "full" else {"positions": positions}
    answers = run(session, family, budget, **parameters)
    order = order_of(session, family, budget, parameters)
    for at, row in asked.iterrows():
        image = int(row["image_id"][-1])
        kept = torch.from_numpy(order[image]).long().sort().values
        compact = positions == "compact"
        plain = plain_logits(
            llava,
            session.visual.features[image],
            kept,
            row["text"],
            row["options"],
            compact=compact,
        )
        np.testing.assert_allclose(answers.logits[at], plain, atol=1e-4)


@pytest.mark.parametrize("family", ["pool", "visionzip", "prumerge"])
def test_merging_strategies_equal_the_plain_forward(llava, features, asked, family):
    images = [picture(seed) for seed in range(3)]
    reads = plugins.declared("strategies", plugins.load("strategies", family), "READS")
    with torch.inference_mode():
        encoded, signals = llava.encode_signals(images, list(reads.values()))
    given = {name: signals[signal] for name, signal in reads.items()}
    tokens = torch.stack([image.features for image in encoded])
    saliency = torch.stack([image.saliency for image in encoded])
    merged, weights = reduce(family, tokens, saliency, 5, **given)
    sparse = weights.flatten()
    places = sparse.nonzero().flatten()
    cls = signals.get("cls")
    starts = [image * 5 * (N + 1) for image in range(4)]
    order = Merged(places.numpy(), sparse[places].numpy(), starts, cls)
    session = Session(llava, asked, features, batch_tokens=512)
    strategy = plugins.load("strategies", family)
    answers = session.run(strategy, strategy.Params(), 5, order, np.zeros(3, np.float32))
    for at, row in asked.iterrows():
        image = int(row["image_id"][-1])
        everything = torch.arange(5)
        plain = plain_logits(
            llava, merged[image], everything, row["text"], row["options"], compact=True
        )
        np.testing.assert_allclose(answers.logits[at], plain, atol=1e-4)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_fastv_equals_a_prompt_at_a_time_through_the_models_own_layers(
    llava, features, asked, layer
):
    session = Session(llava, asked, features, batch_tokens=512)
    answers = run(session, "fastv", 5, layer=layer)
    for at, row in asked.iterrows():
        image = int(row["image_id"][-1])
        plain = plain_fastv(
            llava, session.visual.features[image], row["text"], row["options"], 5, layer
        )
        np.testing.assert_allclose(answers.logits[at], plain, atol=1e-4)


@pytest.mark.parametrize("family", [*VISION[1:], *INSIDE])
def test_budget_of_all_tokens_equals_no_pruning(llava, features, asked, family):
    session = Session(llava, asked, features, batch_tokens=512)
    pruned, full = run(session, family, N), run(session, "full", N)
    for mine, whole in zip(pruned.logits, full.logits, strict=True):
        np.testing.assert_allclose(mine, whole, atol=1e-4)


def test_a_matched_budget_is_that_of_the_tokens_that_cost_as_much(llava, features, asked):
    session = Session(llava, asked, features, batch_tokens=512)
    strategy = plugins.load("strategies", "fastv")
    matched = session.run(strategy, strategy.Params(), 10, None, None, "mean_tokens")
    kept = run(session, "fastv", 4)  # two layers of four see all 16: 2 * 16 + 2 * 4 = 4 * 10
    assert matched.tokens_per_layer == 10
    assert set(matched.n_visual) == {4}
    for mine, theirs in zip(matched.logits, kept.logits, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("family", INSIDE)
def test_the_patches_left_inside_the_decoder_are_told_per_question(llava, features, asked, family):
    session = Session(llava, asked, features, batch_tokens=512)
    answers = run(session, family, 5)
    for at, row in asked.iterrows():
        kept = answers.kept_patches[at]
        if answers.merged_patches is None:
            patches = session.visual.features[int(row["image_id"][-1])]
            covered = coverage(patches[None], torch.from_numpy(kept.astype(np.int64))[None])
            assert answers.coverage[at] == pytest.approx(covered.item(), abs=1e-5)
            assert len(set(kept)) == 5
        else:
            merged = answers.merged_patches[at]
            assert len(kept) < 5
            assert len(merged) > 5 - len(kept)
            assert not set(kept) & set(merged)
    assert {len(kept) for kept in run(session, family, N).kept_patches} == {N}
    assert run(session, "saliency", 5).kept_patches is None


@pytest.mark.parametrize("family", ["saliency", *INSIDE])
def test_batch_size_changes_nothing(llava, features, asked, family):
    answers = [
        run(Session(llava, asked, features, batch_tokens), family, 5)
        for batch_tokens in (1, 90, 4096)
    ]
    for other in answers[1:]:
        for mine, theirs in zip(answers[0].logits, other.logits, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-4)
        np.testing.assert_allclose(answers[0].coverage, other.coverage, atol=1e-6)


def test_cells_that_begin_alike_share_layers_and_answer_as_alone(llava, features, asked):
    session = Session(llava, asked, features, batch_tokens=90)
    for family, budget in (("fastv", 5), ("fastv-two-pass", 3), ("dart", 8), ("fastv", 2)):
        alone = run(Session(llava, asked, features, batch_tokens=90), family, budget)
        shared = run(session, family, budget)
        pairs = zip(shared.logits, alone.logits, strict=True)
        assert all(np.array_equal(*pair) for pair in pairs)


def test_unpruned_rows_are_kept_only_where_states_and_features_fit(monkeypatch):
    rows = [SimpleNamespace(image=0, questions=(0,))]
    states, features = torch.zeros(2, 3, 4), torch.zeros(2, 5, 6)

    def make():
        batch = SimpleNamespace(rows=SimpleNamespace(states=states))
        return unpruned.Unpruned(None, None, batch, features)

    assert make().bytes == states.nbytes + features.nbytes
    most = features.nbytes + unpruned.LAYERS * states.nbytes
    for room, kept in ((most - 1, False), (most, True)):
        monkeypatch.setattr(unpruned, "MOST_BYTES", room)
        memory = unpruned.Memory()
        first = memory.of(rows, make)
        assert (memory.of(rows, make) is first) == kept


def test_unpruned_cells_equal_transformers_on_pixels(llava, features, asked):
    from transformers import AutoProcessor

    session = Session(llava, asked, features, batch_tokens=512)
    answers = run(session, "full", N)
    processor = AutoProcessor.from_pretrained(llava.model.name_or_path, backend="pil")
    for at, row in asked.iterrows():
        image = llava.square(picture(int(row["image_id"][-1])))
        prompt = conversation("vicuna_v1", row["text"])
        inputs = processor(text=prompt, images=image, return_tensors="pt")
        logits = llava.model(**inputs).logits[0, -1]
        plain = logits[llava.option_tokens(row["text"], row["options"])].detach().numpy()
        np.testing.assert_allclose(answers.logits[at], plain, atol=1e-4)
        normaliser = logits.exp().sum().log().item()
        np.testing.assert_allclose(answers.log_normaliser[at], normaliser, atol=1e-4)
        assert answers.top_token[at] == logits.argmax()
        assert answers.logits[at].max() <= answers.log_normaliser[at]


def test_other_spellings_and_letters_are_read_from_the_same_state(llava, features, asked):
    session = Session(llava, asked, features, batch_tokens=512)
    answers = run(session, "full", N)
    assert answers.letter_logits is None  # some options are words
    for at, row in asked.iterrows():
        for option, logit in zip(row["options"], answers.spelling_logits[at], strict=True):
            tokens = llava.tokenizer.convert_tokens_to_ids([f"▁{option}", option])
            image = session.visual.features[int(row["image_id"][-1])]
            every = plain_logits(llava, image, torch.arange(N), row["text"], None, compact=False)
            np.testing.assert_allclose(logit, np.logaddexp(*every[tokens]), atol=1e-4)
    lettered = asked[asked["subset"] == "lettered"]
    of_letters = run(Session(llava, lettered, features, batch_tokens=512), "full", N)
    assert of_letters.letter_logits.shape == (len(lettered), 4)
    for row, options, logits in zip(
        of_letters.letter_logits, lettered["options"], of_letters.logits, strict=True
    ):
        shared = min(4, len(options))
        np.testing.assert_array_equal(row[:shared], logits[:shared])


def test_a_spelling_of_two_options_is_neithers():
    model = SimpleNamespace(
        option_tokens=lambda _, options: [{"Yes": 5, "yes": 6, "No": 7}[one] for one in options],
        option_spellings=lambda _, options: [
            {"Yes": [5, 6, 8], "yes": [6, 5, 8], "No": [7, 9]}[one] for one in options
        ],
    )
    tokens = OptionTokens.of(model, [("?", ("Yes", "yes", "No"))])
    assert tokens.spellings == {"Yes": [5], "yes": [6], "No": [7, 9]}
    assert tokens.letters is None


@pytest.mark.parametrize("words", [1, 7, 4096])
def test_the_vocabulary_is_read_in_parts_of_any_size(llava, words, monkeypatch):
    monkeypatch.setattr(decoder, "WORDS", words)
    states = torch.randn(6, 64, generator=torch.Generator().manual_seed(0))
    whole = llava.model.lm_head(llava.model.model.language_model.norm(states))
    normaliser, top, _ = llava.decoder.over_vocabulary(states)
    torch.testing.assert_close(normaliser, torch.logsumexp(whole, dim=-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(top, whole.argmax(dim=-1))


@pytest.mark.parametrize("words", [2, 4096])
def test_the_first_of_tied_tokens_is_the_top_one(llava, words, monkeypatch):
    monkeypatch.setattr(decoder, "WORDS", words)
    weight = torch.zeros(9, 64)
    weight[[4, 5, 8], 0] = 1.0  # one product each, so that no order of summation tells them apart
    head = SimpleNamespace(weight=weight)
    _, top, _ = decoder.Decoder(llava.decoder.backbone, head).over_vocabulary(torch.ones(1, 64))
    assert top.tolist() == [4]


def test_two_passes_compact_positions_equal_the_plain_forward(llava, features, asked):
    from prunecal.strategies import fastv

    session = Session(llava, asked, features, batch_tokens=512)
    answers = run(session, "fastv-two-pass", 5, positions="compact")
    at, row = 1, asked.iloc[1]
    embeds, is_image = unpruned_prompt(llava, session.visual.features[0], row["text"])
    causal = type(
        "Causal", (), {"model": llava.model.model.language_model, "lm_head": llava.model.lm_head}
    )  # noqa: E501
    kept, _ = fastv.fastv_logits(causal, embeds, is_image, 2, 5)
    plain = plain_logits(
        llava, session.visual.features[0], kept, row["text"], row["options"], compact=True
    )
    np.testing.assert_allclose(answers.logits[at], plain, atol=1e-4)


def unpruned_prompt(llava, features, text):
    ids = llava.tokenizer(conversation("vicuna_v1", text))["input_ids"]
    at = ids.index(llava.model.config.image_token_id)
    embed = llava.model.get_input_embeddings()
    visual = llava.model.model.multi_modal_projector(features)
    before, after = embed(torch.tensor(ids[:at])), embed(torch.tensor(ids[at + 1 :]))
    is_image = torch.zeros(len(ids) - 1 + N, dtype=torch.bool)
    is_image[at : at + N] = True
    return torch.cat((before, visual, after))[None], is_image


def test_saliency_is_the_cls_attention_that_eager_attention_gives(llava):
    images = [picture(seed) for seed in range(2)]
    tower = llava.model.model.vision_tower
    tower.set_attn_implementation("eager")
    output = tower(llava.pixels(images), output_attentions=True, output_hidden_states=True)
    tower.set_attn_implementation("sdpa")
    features, saliency = encoded(llava, images)
    expected = output.attentions[-2][:, :, 0, 1:].sum(1)
    torch.testing.assert_close(saliency, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(features, output.hidden_states[-2][:, 1:], atol=1e-5, rtol=0)


def test_out_of_memory_halves_the_batch_and_changes_nothing(
    llava, features, asked, monkeypatch, caplog
):
    session = Session(llava, asked, features, batch_tokens=4096)
    expected = run(session, "saliency", 5)
    whole = session.runner.before

    def small_memory(*settings_and_rows, short):
        rows = settings_and_rows[-1]
        if sum(len(row.questions) for row in rows) > 2:
            raise torch.OutOfMemoryError("pretended")
        return whole(*settings_and_rows, short=short)

    monkeypatch.setattr(session.runner, "before", small_memory)
    with caplog.at_level("WARNING", logger="prunecal"):
        answers = run(session, "saliency", 5)
    assert "halving" in caplog.text
    for mine, theirs in zip(answers.logits, expected.logits, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


def test_nothing_of_a_micro_batch_is_kept_but_its_answers_numbers(llava, features, asked):
    session = Session(llava, asked, features, batch_tokens=64)
    read, tensors, alive = session.reader.read, [], []

    def watched(states):
        gc.collect()
        alive.append(sum(tensor() is not None for tensor in tensors))
        parts = read(states)
        tensors.extend(weakref.ref(part) for part in (states, *parts))
        return parts

    session.reader.read = watched
    run(session, "saliency", 5)
    assert len(alive) > 5
    # the parts of the last micro-batch have a name still
    assert max(alive) <= 6


def test_too_little_memory_for_one_question_is_said(llava, features, asked, monkeypatch):
    session = Session(llava, asked, features, batch_tokens=4096)

    def no_memory(*_, short):
        raise torch.OutOfMemoryError("pretended")

    monkeypatch.setattr(session.runner, "before", no_memory)
    with pytest.raises(PrunecalError, match="out of memory with a single question"):
        run(session, "saliency", 5)


def test_nan_logits_name_the_question(llava, features, asked):
    session = Session(llava, asked, features, batch_tokens=512)
    session.visual.features = list(session.visual.features)
    session.visual.features[1] = torch.full_like(session.visual.features[1], torch.nan)
    first = asked.loc[asked["image_id"] == "image1", "question_id"].iloc[0]
    order = np.tile(np.arange(5, dtype=np.int16), (3, 1))
    strategy = plugins.load("strategies", "saliency")
    with pytest.raises(PrunecalError, match=f"question '{first}' has NaN"):
        session.run(strategy, strategy.Params(), 5, order, np.zeros(3, np.float32))


def test_options_with_one_first_token_are_refused(llava):
    with pytest.raises(PrunecalError, match="'red' and 'red' begin with the same token"):
        llava.option_tokens("Is it?", ["red", "red"])


def test_a_model_of_another_size_is_refused(llava):
    from pathlib import Path

    with pytest.raises(PrunecalError, match="has 16 visual tokens per image but the config says"):
        Llava(
            Path(llava.model.name_or_path),
            SETTINGS | {"visual_tokens": 100},
            torch.device("cpu"),
        )


@pytest.mark.parametrize("excess", [0, 1])
def test_prompts_longer_than_the_models_positions_are_named_before_inference(
    llava, features, asked, excess, monkeypatch
):
    system, after = llava.tokenize(asked["text"].tolist())
    lengths = [len(system) + N + len(ids) for ids in after]
    longest = asked["question_id"].iloc[int(np.argmax(lengths))]
    config = llava.model.model.language_model.config
    monkeypatch.setattr(config, "max_position_embeddings", max(lengths) - excess)
    if not excess:
        Session(llava, asked, features, 512)
        return
    message = f"{longest}.* prompt of {max(lengths)} tokens .* has {max(lengths) - 1} positions"
    with pytest.raises(PrunecalError, match=message):
        Session(llava, asked, features, 512)
    monkeypatch.setattr(config, "rope_parameters", {"rope_type": "linear", "factor": 2.0})
    Session(llava, asked, features, 512)


@pytest.mark.parametrize("batch_tokens", [1, 512])
def test_blind_answers_equal_the_plain_forward_on_prompts_without_an_image(
    llava, features, asked, batch_tokens
):
    answers = Session(llava, asked, features, batch_tokens).run_blind()
    for at, row in asked.iterrows():
        prompt = conversation("vicuna_v1", row["text"]).replace("<image>\n", "")
        ids = torch.tensor([llava.tokenizer(prompt)["input_ids"]])
        logits = llava.model(input_ids=ids).logits[0, -1].detach()
        plain = logits[llava.option_tokens(row["text"], row["options"])].numpy()
        np.testing.assert_allclose(answers.logits[at], plain, atol=1e-4)
    assert set(answers.n_visual) == {0}
    assert set(answers.coverage) == {0}
    assert answers.tokens_per_layer == 0
    assert answers.distinct == asked["text"].nunique()


def test_questions_of_images_too_small_to_merge_have_no_merged_patches():
    kept = torch.tensor([[2, 0, -1]], dtype=torch.int16)
    mask = torch.tensor([[False, True, False, True]])
    left = patches_per_row([([0], kept, mask), ([1], kept[:, :2], None)], np.array([1, 0, 1]))
    assert [row.tolist() for row in left["kept_patches"]] == [[0, 2]] * 3
    assert [row.tolist() for row in left["merged_patches"]] == [[], [1, 3], []]
    assert {row.dtype for row in left["merged_patches"]} == {np.dtype(np.int16)}
