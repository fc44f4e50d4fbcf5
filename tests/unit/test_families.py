"""Every model family's cells against transformers' own full model on one question at a time.

In float64, norms and softmax too, so that nothing but a difference of method is larger than EXACT.
"""

import contextlib
import itertools
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import tiny_families
from helpers.family_cases import (
    FAMILIES,
    QWEN,
    SIZES,
    asked_about,
    in_double,
    plain,
    run,
    whole_prompt,
)
from helpers.tiny_llava import TEXTS, picture
from prunecal.core import plugins
from prunecal.engine.session import Session
from prunecal.models import load_model
from prunecal.study.budgets import kept_tokens
from prunecal.study.prompts import TEMPLATES

SHARE, CPU, EXACT = "25%", torch.device("cpu"), 1e-12


@pytest.fixture(autouse=True)
def _cases_in_double(request):
    with in_double() if "case" in request.fixturenames else contextlib.nullcontext():
        yield


@pytest.fixture(scope="module", params=FAMILIES)
def case(request, tmp_path_factory):
    """A family's model of some shape, its encoded images, a session on questions about them."""
    entry = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp("family")
    with tiny_families.drawn_shape(list(FAMILIES).index(request.param)):
        entry.make(folder)
    settings = {"dtype": "float32", "visual_tokens": None, **entry.settings}
    model = load_model(entry.family, folder, settings, torch.device("cpu"))
    model.model.double()
    images = [picture(seed, size) for seed, size in enumerate(SIZES)]
    with in_double():
        encoded, asked, session = asked_about(model, images, folder / "features.safetensors")
    return SimpleNamespace(
        model=model, images=images, encoded=encoded, asked=asked, session=session, entry=entry
    )


@pytest.mark.parametrize(
    "case",
    [
        "gemma3, window of 8", "llava_onevision", "idefics3", "qwen2_5_vl at native resolution",
        "qwen3_vl at native resolution",
    ],
    indirect=True,
)  # fmt: skip
def test_short_answers_equal_generate_from_pixels(case):
    rows = case.asked.iloc[[0, 1, 4]]
    path = case.model.folder / "features.safetensors"
    case.model.end_tokens = lambda: [2]
    session = Session(case.model, rows, path, batch_tokens=2048, max_new_tokens=3)
    counts = session.visual.counts
    every = [np.arange(count, dtype=np.int16) for count in counts]
    full = plugins.load("strategies", "full")
    short = session.run(full, full.Params(), "all", every, np.zeros(3, np.float32)).short
    row = rows.iloc[1]  # of two on one image
    ids, _ = whole_prompt(case, row)
    inputs, _ = case.entry.inputs(case.model, case.images[0], ids)
    with torch.inference_mode():
        result = case.model.model.generate(
            input_ids=torch.tensor([ids]), **inputs, max_new_tokens=3, do_sample=False,
            eos_token_id=2, pad_token_id=0, output_scores=True, return_dict_in_generate=True,
        )  # fmt: skip
    tokens = result.sequences[0, len(ids) :].tolist()
    steps = zip(result.scores, tokens, strict=True)
    log_probability = sum(scores[0].log_softmax(-1)[token] for scores, token in steps)
    assert short.texts[1] == case.model.text([token for token in tokens if token != 2])
    assert short.confidence[1] == pytest.approx(log_probability.exp().item(), rel=1e-3)


def pruned_plain(case, row, kept, positions):
    """Return option logits of a pruned prompt by the model with the kept visual tokens alone.

    As many image tokens as are left, what they embed as `mm_encoder_outputs`, and the positions of
    the whole prompt unless they are compact.
    """
    model, image = case.model, int(row["image_id"][-1])
    ids, visual = whole_prompt(case, row)
    _, axes = case.entry.inputs(model, case.images[image], ids)
    left = {-1, *kept.tolist()}
    columns = [at for at, token in enumerate(visual) if token in left]
    if model.settings.get("newline") == "row":  # a newline stays while a token of its row does
        base, rows, width = case.encoded[image].layout
        number = itertools.count()
        row_of = {
            at: next(number)
            for at, token in enumerate(visual)
            if token < 0 and ids[at] == model.image_token
        }
        full = {(token - base) // width for token in kept.tolist() if token >= base}
        columns = [at for at in columns if at not in row_of or row_of[at] in full]
    one = case.encoded[image]
    with torch.inference_mode():
        embedded = [
            model.project(one.features[visual[at]])
            if visual[at] >= 0
            else model.embed_glue(torch.tensor(-1))
            for at in columns
            if ids[at] == model.image_token
        ]
        features = torch.stack(embedded)
        as_tensor = case.entry.family in ("internvl", "gemma3", "vip-llava")
        more = (
            {"token_type_ids": (torch.tensor([ids]) == model.image_token).long()[:, columns]}
            if case.entry.family == "gemma3"
            else {}
        )
        output = SimpleNamespace(
            pooler_output=features[None] if as_tensor else [features],
            deepstack_features=[[deep[kept]] for deep in one.deep],
        )
        at = axes[:, columns] if positions == "original" else torch.arange(len(columns))[None]
        ids = torch.tensor([ids])[:, columns]
        logits = model.model(
            input_ids=ids,
            position_ids=at[:, None] if len(at) == 3 else at,
            attention_mask=torch.ones_like(ids),
            mm_encoder_outputs={"image": output},
            **more,
        ).logits[0, -1]
    return logits[model.option_tokens(row["text"], row["options"])].numpy()


@pytest.mark.slow
def test_unpruned_cells_equal_the_whole_model_on_pixels(case):
    order = [np.arange(count, dtype=np.int16) for count in case.session.visual.counts]
    answers = run(case, "full", "all", order)
    for at, row in case.asked.iterrows():
        np.testing.assert_allclose(answers.logits[at], plain(case, row), atol=EXACT)


@pytest.mark.slow
def test_pruned_cells_equal_the_model_with_the_kept_tokens_alone(case):
    random = np.random.default_rng(0)
    order = [
        random.permutation(count)[: kept_tokens(SHARE, count)].astype(np.int16)
        for count in case.session.visual.counts
    ]
    for positions in plugins.load("models", case.entry.family).POSITIONS:
        answers = run(case, "saliency", SHARE, order, positions=positions)
        for at, row in case.asked.iterrows():
            kept = torch.from_numpy(np.sort(order[int(row["image_id"][-1])])).long()
            expected = pruned_plain(case, row, kept, positions)
            np.testing.assert_allclose(answers.logits[at], expected, atol=EXACT)
            assert answers.n_visual[at] == len(kept)


def test_families_say_whether_they_read_smaller_images():
    for name in plugins.names("models"):
        family = plugins.load("models", name)
        own = getattr(family, "OWN_RESOLUTION", False)
        assert hasattr(family.load, "encode_smaller") == own == name.startswith("qwen")


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [name for name in FAMILIES if name.startswith("qwen")], indirect=True
)
def test_a_smaller_image_is_encoded_as_the_resized_one(case):
    side = 8  # pixels along a token
    with torch.inference_mode():
        for image, tokens in zip(case.images, (9, 20, 4), strict=True):
            (smaller,) = case.model.encode_smaller([image], [tokens])
            scale = (tokens * side**2 / (image.width * image.height)) ** 0.5
            size = [round(edge * scale) for edge in image.size]
            (expected,) = case.model.encode([image.resize(size, Image.Resampling.BICUBIC)])
            torch.testing.assert_close(smaller.features, expected.features)
            assert abs(len(smaller.features) - tokens) <= 0.34 * tokens


@pytest.mark.slow
def test_blind_answers_equal_the_model_on_prompts_without_an_image(case):
    answers, template = case.session.run_blind(), TEMPLATES[case.entry.settings["template"]]
    gap = " " if case.entry.family == "idefics3" else ""
    for at, row in case.asked.iterrows():
        prompt = re.sub("<image>\n?", gap, template).replace("{text}", row["text"])
        ids = torch.tensor([case.model.tokenizer(prompt)["input_ids"]])
        with torch.inference_mode():
            logits = case.model.model(input_ids=ids).logits[0, -1]
        expected = logits[case.model.option_tokens(row["text"], row["options"])].numpy()
        np.testing.assert_allclose(answers.logits[at], expected, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fastv", "fastv-two-pass"])
def test_all_tokens_inside_the_decoder_equal_no_pruning(case, name):
    answers = run(case, name, "100%")
    for at, row in case.asked.iterrows():
        np.testing.assert_allclose(answers.logits[at], plain(case, row), atol=EXACT)


@pytest.mark.slow
def test_images_encoded_together_equal_each_alone(case):
    with torch.inference_mode():
        for image, together in zip(case.images, case.encoded, strict=True):
            (alone,) = case.model.encode([image])
            torch.testing.assert_close(alone.features, together.features, atol=EXACT, rtol=0)
            torch.testing.assert_close(alone.saliency, together.saliency, atol=EXACT, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_qwens_saliency_is_the_attention_received_that_eager_attention_gives(
    kind, tmp_path, monkeypatch
):
    import importlib

    reference = tiny_families.qwen(tmp_path, kind)
    family = "qwen3-vl" if kind == "qwen3_vl" else "qwen2-5-vl"
    settings = {**QWEN, "visual_tokens": None, "template": "qwen_vl-lmms", "dtype": "float32"}
    model = load_model(family, tmp_path, settings, torch.device("cpu"))
    image = picture(0, SIZES[0])
    module = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
    eager, weights = module.eager_attention_forward, []

    def noted(block, *arguments, **named):
        output, attention = eager(block, *arguments, **named)
        weights.append(attention)
        return output, attention

    pixels, grid = model.pixels([image])
    with torch.inference_mode():
        (one,) = model.encode([image])
        monkeypatch.setattr(module, "eager_attention_forward", noted)
        tower = reference.model.visual
        tower.config._attn_implementation = "eager"
        tower(pixels, grid_thw=grid)
    expected = weights[-1][0].sum(0).mean(0).view(-1, 4).mean(1)
    if kind == "qwen2_5_vl":
        from transformers.vision_utils import get_vision_window_index

        order, _ = get_vision_window_index(grid, 2, 16, 4)
        expected = expected[torch.argsort(order)]
    torch.testing.assert_close(one.saliency, expected, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_a_template_that_holds_the_begin_token_gets_no_second_one(tmp_path):
    """Idefics3's: see pull request 35950 of transformers."""
    tiny_families.idefics3(tmp_path)
    settings = {"split": True, "longest_edge": None, "template": "idefics3-hf"}
    settings |= {"dtype": "float32", "visual_tokens": None}
    model = load_model("idefics3", tmp_path, settings, CPU)
    begin = "<|begin_of_text|>"
    model.tokenizer.add_special_tokens({"bos_token": begin})
    number = model.tokenizer.convert_tokens_to_ids(begin)
    before, _ = model.tokenize([TEXTS[0]])
    for ids in (before, *model.tokenize_without_image([TEXTS[0]])):
        assert (ids[0], ids.count(number)) == (number, 1)
        assert 1 not in ids  # `<s>`, which this tokenizer puts before every text


@pytest.mark.slow
def test_qwen_on_padded_squares_has_a_fixed_number_of_tokens(tmp_path):
    from prunecal.core.errors import PrunecalError

    tiny_families.qwen(tmp_path)
    settings = {**QWEN, "square": 32, "template": "qwen_vl-lmms", "dtype": "float32"}
    model = load_model("qwen2-5-vl", tmp_path, {**settings, "visual_tokens": 16}, CPU)
    with torch.inference_mode():
        encoded = model.encode([picture(seed, size) for seed, size in enumerate(SIZES)])
    assert [one.features.shape for one in encoded] == [(16, 64)] * 3
    assert model.block((), 16).positions.amax(dim=1).tolist() == [0, 3, 3]
    for change, message in (
        ({"visual_tokens": 25}, "has 16 visual tokens per image but the config says"),
        ({"square": 30, "visual_tokens": 16}, "square: 30 is no multiple of 8"),
    ):
        with pytest.raises(PrunecalError, match=message):
            load_model("qwen2-5-vl", tmp_path, settings | change, CPU)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [name for name in FAMILIES if not name.startswith("qwen")], indirect=True
)  # Qwen's tower is checked above
def test_saliency_of_towers_is_what_eager_attention_gives(case):
    family, core, image, one = (
        case.entry.family,
        case.model.model.model,
        case.images[0],
        case.encoded[0],
    )
    tower = core.vision_model if family == "idefics3" else core.vision_tower
    tower.set_attn_implementation("eager")
    with torch.inference_mode():
        inputs, _ = case.entry.inputs(case.model, image, [case.model.image_token])
        pixels = inputs["pixel_values"]
        flat = pixels.flatten(0, pixels.ndim - 4)
        attentions = tower(flat, output_attentions=True).attentions
    tower.set_attn_implementation("sdpa")
    of_cls = family in ("llava-next", "internvl", "vip-llava")
    weights = attentions[-2 if family in ("llava-next", "vip-llava") else -1]
    weights = weights[:, :, 0, 1:].sum(1) if of_cls else weights.sum(1).mean(1)
    if family in ("llava-next", "llava-onevision"):  # tiles are put together as features are
        of_next = {"vision_feature_select_strategy": "default"}
        more = of_next if of_cls else {"vision_aspect_ratio": core.config.vision_aspect_ratio}
        with torch.inference_mode():
            packed, _ = core.pack_image_features(
                [weights[..., None]],
                torch.as_tensor(inputs["image_sizes"]),
                image_newline=torch.tensor([torch.nan]).double(),
                **more,
            )
        expected = packed[0][~packed[0].isnan()]
    elif family == "vip-llava":
        expected = weights.flatten()
    else:
        expected = weights.view(-1, 3, 2, 3, 2).mean((2, 4)).flatten()
    torch.testing.assert_close(one.saliency, expected, atol=EXACT, rtol=0)


def surroundings(case, states, positions, marks, number):
    """Return the rotary positions and the mask that transformers gives a layer of a prompt."""
    text, length = case.model.decoder.backbone, states.shape[1]
    if case.entry.family != "gemma3":
        at = positions[:, None] if len(positions) == 3 else positions
        mask = torch.full((1, 1, length, length), -torch.inf).triu(1)
        return text.rotary_emb(states, at), mask
    from transformers.models.gemma3 import modeling_gemma3 as gemma3

    kind = text.config.layer_types[number]
    masks = gemma3.create_masks_for_vision_model(
        config=text.config,
        inputs_embeds=states,
        attention_mask=torch.ones(1, length, dtype=torch.long),
        position_ids=positions,
        past_key_values=None,
        block_sequence_ids=gemma3.get_block_sequence_ids_for_mask(
            (marks >= 0).long()[None], device=states.device
        ),
    )
    return text.rotary_emb(states, positions, kind), masks[kind]


def plain_fastv(case, row, layer):
    """FastV on one prompt through transformers' own layers, eager; logits and kept tokens."""
    model, image = case.model, int(row["image_id"][-1])
    ids, visual = whole_prompt(case, row)
    _, positions = case.entry.inputs(model, case.images[image], ids)
    one, text = case.encoded[image], model.decoder.backbone
    marks, ids = torch.tensor(visual), torch.tensor(ids)
    states = model.decoder.embed(ids.clamp(max=text.config.vocab_size - 1)).clone()
    states[marks >= 0] = model.project(one.features)
    glued = (marks < 0) & (ids == model.image_token)
    states[glued] = model.embed_glue(torch.full((int(glued.sum()),), -1)) if glued.any() else 0.0
    states, config = states[None], text.config
    config._attn_implementation = "eager"
    for number, block in enumerate(text.layers):
        if number == layer:
            scores = attention[0].mean(0)[-1]  # noqa: F821  assigned in the layer before
            columns = torch.nonzero(marks >= 0).flatten()
            budget = kept_tokens(SHARE, len(columns))
            best = scores[columns].argsort(descending=True, stable=True)[:budget]
            stay = marks < 0
            stay[columns[best]] = True
            states, positions, marks = states[:, stay], positions[:, stay], marks[stay]
        rotary, mask = surroundings(case, states, positions, marks, number)
        _, attention = block.self_attn(
            hidden_states=block.input_layernorm(states),
            position_embeddings=rotary,
            attention_mask=mask,
            position_ids=None,
        )
        states = block(
            states, attention_mask=mask, position_embeddings=rotary, position_ids=None
        ).clone()
        if number < len(one.deep):
            states[0, marks >= 0] += one.deep[number][marks[marks >= 0]]
    config._attn_implementation = "sdpa"
    logits = model.model.lm_head(text.norm(states))[0, -1]
    return logits[model.option_tokens(row["text"], row["options"])].numpy()


@pytest.mark.slow
@pytest.mark.parametrize("layer", [1, 2])
def test_fastv_equals_a_prompt_at_a_time_through_the_models_own_layers(case, layer):
    answers = run(case, "fastv", SHARE, layer=layer)
    with torch.inference_mode():
        for at, row in case.asked.iterrows():
            expected = plain_fastv(case, row, layer)
            np.testing.assert_allclose(answers.logits[at], expected, atol=EXACT)
