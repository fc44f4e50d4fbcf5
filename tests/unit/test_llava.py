"""A random model in LLaVA-1.5's own shape (CLIP 336/14, 576 visual tokens), few thin layers."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.tiny_llava import (
    TEXTS,
    embedded_prompt,
    encoded,
    loaded,
    picture,
    questions,
    tiny_llava,
)
from prunecal.core import plugins
from prunecal.core.errors import PrunecalError
from prunecal.engine.session import Session
from prunecal.models.llava import pad_to_square
from prunecal.storage.arrays import write_tensors
from prunecal.strategies import rank
from prunecal.study.prompts import conversation

N = 576
SHAPES = {"portrait": (200, 337), "landscape": (640, 427), "square": (90, 90), "narrow": (5, 336)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    tiny_llava(folder, image_size=336, patch_size=14)
    return folder


@pytest.fixture(scope="module")
def llava(folder):
    return loaded(folder, visual_tokens=N)


@pytest.fixture(scope="module")
def processor(folder):
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(folder, backend="pil")


@pytest.fixture(scope="module")
def images():
    return [picture(seed, size) for seed, size in enumerate(SHAPES.values())]


def padded_by_hand(image, mean):
    """Pad an image to a square with numpy alone."""
    values = np.asarray(image.convert("RGB"))
    height, width, _ = values.shape
    side = max(height, width)
    square = np.empty((side, side, 3), np.uint8)
    square[:] = [int(channel * 255) for channel in mean]
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = values
    return square


def test_the_pieces_of_a_prompt_have_the_ids_of_the_unbroken_prompt(llava, processor):
    before, after = llava.tokenize(TEXTS)
    image = llava.model.config.image_token_id
    for text, rest in zip(TEXTS, after, strict=True):
        prompt = conversation("vicuna_v1", text)
        assert [*before, image, *rest] == llava.tokenizer(prompt)["input_ids"]
        # what transformers' own processor feeds the model: N placeholders, the rest the same
        inputs = processor(text=prompt, images=picture(0))
        assert [*before, *[image] * N, *rest] == inputs["input_ids"][0]


def test_a_text_with_a_placeholder_of_its_own_is_refused(llava):
    with pytest.raises(PrunecalError, match="contains <image>"):
        llava.tokenize(["What does <image> mean?"])


@pytest.mark.parametrize("size", SHAPES.values(), ids=SHAPES.keys())
def test_images_are_padded_to_a_square_as_by_hand_and_resized_as_by_the_processor(llava, size):
    image = picture(7, size)
    by_hand = padded_by_hand(image, llava.processor.image_mean)
    square = pad_to_square(image, tuple(int(one * 255) for one in llava.processor.image_mean))
    np.testing.assert_array_equal(np.asarray(square), by_hand)
    expected = llava.processor(images=[by_hand], return_tensors="pt")["pixel_values"]
    assert torch.equal(llava.pixels([image]), expected)


def test_the_colour_of_the_padding_is_clips_mean():
    mean = (0.48145466, 0.4578275, 0.40821073)  # CLIP's; LLaVA's own code gets 122, 116, 104
    square = pad_to_square(Image.new("RGB", (2, 4)), tuple(int(channel * 255) for channel in mean))
    assert square.getpixel((0, 0)) == (122, 116, 104)
    assert square.getpixel((1, 3)) == (0, 0, 0)


def test_the_model_sees_the_padded_pixels_normalised(llava):
    image = picture(3, (336, 201))  # as large as the tower's input: nothing is resized
    mean, std = (np.array(getattr(llava.processor, f"image_{part}")) for part in ("mean", "std"))
    expected = (padded_by_hand(image, mean) / 255 - mean) / std
    found = llava.pixels([image])[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found[0]).max() < 1 / 255 / std.min()  # padding is as good as zero


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "I;16", "CMYK"])
def test_images_of_every_mode_are_taken_as_rgb(llava, mode):
    image = Image.new("L", (30, 20), 200) if mode == "I;16" else picture(1, (30, 20))
    image = image.convert("I").convert("I;16") if mode == "I;16" else image.convert(mode)
    assert llava.square(image).mode == "RGB"
    assert llava.pixels([image]).shape == (1, 3, 336, 336)


def test_cropped_images_are_what_the_processor_alone_makes(llava, images):
    cropping = copy.copy(llava)
    cropping.settings = llava.settings | {"image": "crop"}
    alone = llava.processor(images=images, return_tensors="pt")["pixel_values"]
    assert torch.equal(cropping.pixels(images), alone)
    padded = llava.pixels(images)
    differ = [not torch.equal(*pair) for pair in zip(padded, alone, strict=True)]
    assert differ == [True, True, False, True]  # a square image needs no padding


def test_features_and_saliency_are_those_of_the_towers_penultimate_layer(llava, images):
    tower, pixels = llava.model.model.vision_tower, llava.pixels(images)
    tower.set_attn_implementation("eager")
    output = tower(pixels, output_attentions=True, output_hidden_states=True)
    tower.set_attn_implementation("sdpa")
    features, saliency = encoded(llava, images)
    assert features.shape == (len(images), N, 48)
    assert saliency.dtype == torch.float32
    torch.testing.assert_close(features, output.hidden_states[-2][:, 1:], atol=1e-4, rtol=0)
    torch.testing.assert_close(
        saliency, output.attentions[-2][:, :, 0, 1:].sum(1), atol=1e-5, rtol=0
    )


def test_projected_features_are_the_models_own_image_features(llava, images):
    output = llava.model.get_image_features(llava.pixels(images))
    expected = torch.stack(tuple(getattr(output, "pooler_output", output)))
    found = llava.project(encoded(llava, images)[0])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_an_option_is_its_first_token_after_the_prompt(llava):
    for text, options in ((TEXTS[0], ["Yes", "No"]), (TEXTS[-1], list("ABCDE"))):
        tokens = llava.option_tokens(text, options)
        assert len(set(tokens)) == len(options)
        for token, option in zip(tokens, options, strict=True):
            written = llava.tokenizer.convert_ids_to_tokens(token)
            assert written.startswith("▁")  # a word of its own: the space is the token's
            assert option.startswith(written[1:])
            assert written != "▁"


def test_options_with_one_first_token_are_named(llava):
    with pytest.raises(PrunecalError, match="'é' and 'è' begin with the same token '▁'"):
        llava.option_tokens(TEXTS[0], ["Yes", "é", "è"])


@pytest.fixture(scope="module")
def session(llava, tmp_path_factory):
    path = tmp_path_factory.mktemp("features") / "features.safetensors"
    with torch.inference_mode():
        features, saliency = encoded(llava, [picture(0), picture(1)])
    arrays = {"features": features.contiguous(), "saliency": saliency}
    write_tensors(path, arrays, {"image_id": ["image0", "image1"]})
    return Session(llava, questions(2), path, batch_tokens=2048)


def answer(session, family, budget, **parameters):
    strategy = plugins.load("strategies", family)
    saliency = torch.rand(2, N, generator=torch.Generator().manual_seed(0))
    order = rank(family, torch.stack(list(session.visual.features)), saliency, budget, **parameters)
    params, covered = strategy.Params(**parameters), np.ones(2, np.float32)
    return order, session.run(strategy, params, budget, order.to(torch.int16).numpy(), covered)


def test_a_pruned_cell_equals_the_plain_forward_on_the_kept_tokens(llava, session):
    order, answers = answer(session, "scope", 64, alpha=0.5)
    asked = questions(2)
    for at in (0, 3, 4, 6, 10):  # both images, both tasks
        row = asked.iloc[at]
        image = int(row["image_id"][-1])
        output = llava.model.get_image_features(llava.pixels([picture(image)]))
        whole = getattr(output, "pooler_output", output)[0]
        visual = whole[order[image].sort().values]
        prompt = embedded_prompt(llava, row["text"], visual)
        plain = llava.model(inputs_embeds=prompt).logits[0, -1]
        plain = plain[llava.option_tokens(row["text"], row["options"])]
        np.testing.assert_allclose(answers.logits[at], plain.detach().numpy(), atol=1e-4)
    assert set(answers.n_visual) == {64}


def test_an_unpruned_cell_equals_transformers_from_pixels_and_prompt(llava, session, processor):
    _, answers = answer(session, "full", N)
    asked = questions(2)
    for at in (0, 4, 7):  # both images, both tasks
        row = asked.iloc[at]
        inputs = processor(
            text=conversation("vicuna_v1", row["text"]),
            images=llava.square(picture(int(row["image_id"][-1]))),
            return_tensors="pt",
        )
        plain = llava.model(**inputs).logits[0, -1]
        plain = plain[llava.option_tokens(row["text"], row["options"])]
        np.testing.assert_allclose(answers.logits[at], plain.detach().numpy(), atol=1e-4)


def test_half_precision_gives_float32_logits_near_the_float32_ones(folder, llava, session):
    half = loaded(folder, visual_tokens=N, dtype="bfloat16")
    states = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    logits = half.decoder.logits(states.bfloat16())
    assert logits.dtype == torch.float32
    whole = llava.decoder.logits(states.bfloat16().float())
    torch.testing.assert_close(logits, whole, atol=0.05, rtol=0.05)
    assert len(set(logits.flatten().tolist())) > 0.9 * logits.numel()  # not rounded to half


@pytest.mark.parametrize(
    ("changes", "visual_tokens", "message"),
    [
        (
            {},
            100,
            "has 576 visual tokens per image but the config says visual_tokens: 100; correct",
        ),
        ({"vision_feature_select_strategy": "full"}, N, "with strategy 'full'.*use another model"),
        ({"vision_feature_layer": [-2, -5]}, N, r"from layer \[-2, -5\].*use another model"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_before_its_weights_are_read(
    folder, tmp_path, changes, visual_tokens, message
):
    shutil.copy(folder / "config.json", tmp_path)  # no weights there at all
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    with pytest.raises(PrunecalError, match=message):
        loaded(tmp_path, visual_tokens=visual_tokens)
