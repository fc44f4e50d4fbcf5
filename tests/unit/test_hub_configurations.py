"""Checkpoints with the configurations and the tensor names of the Hub load and answer exactly."""

import hashlib
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from helpers import hub_clip as clip
from helpers import hub_configurations as hub
from helpers import hub_qwen as qwen
from helpers import hub_tiles as tiled
from helpers.family_cases import (
    asked_about,
    gemma_inputs,
    masked_inputs,
    next_inputs,
    plain,
    qwen_inputs,
    run,
    square_inputs,
    tile_inputs,
)
from helpers.tiny_families import noisy
from helpers.tiny_llava import picture
from prunecal.models import check_model, load_model

CPU = torch.device("cpu")
CLIP_NAMES = (  # of checkpoints that were saved before transformers 4.52
    (r"^model\.language_model\.", "language_model.model."),
    (r"^lm_head\.", "language_model.lm_head."),
    (r"^model\.vision_tower\.", "vision_tower.vision_model."),
    (r"^model\.(multi_modal_projector|image_newline)", r"\1"),
)
NEW_CLIP_NAMES = ((r"^model\.vision_tower\.", "model.vision_tower.vision_model."),)
INTERNVL_NAMES = (*CLIP_NAMES[:2], (r"^model\.vision_tower\.", "vision_tower."), CLIP_NAMES[3])
QWEN_NAMES = ((r"^model\.language_model\.", "model."), (r"^model\.visual\.", "visual."))
AS_THEY_ARE = ()
IMAGE = {"<image>": 32000}
CHAT = {"<|im_start|>": 151644, "<|im_end|>": 151645}
SEEN_BY_QWEN = CHAT | {
    "<|vision_start|>": 151652,
    "<|vision_end|>": 151653,
    "<|image_pad|>": 151655,
}
TILES = {f"<row_{row}_col_{column}>": 49146 + 6 * row + column for row in range(1, 7)
         for column in range(1, 7)}  # fmt: skip
AROUND = {
    "<|im_start|>": 1,
    "<global-img>": 49152,
    **TILES,
    "<fake_token_around_image>": 49189,
    "<image>": 49190,
    "<end_of_utterance>": 49279,
}
TURNS = {
    "<start_of_turn>": 105,
    "<end_of_turn>": 106,
    "<start_of_image>": 255999,
    "<end_of_image>": 256000,
    "<image_soft_token>": 262144,
}
CONTEXT = CHAT | {"<img>": 151665, "</img>": 151666, "<IMG_CONTEXT>": 151667}
VIDEO = CHAT | {"<image>": 151646, "<video>": 151647}
VICUNA = {"image": "pad", "visual_tokens": 576, "template": "vicuna_v1"}
VIP = {**VICUNA, "template": "vip_llava-hf"}
TWO_TILES = {"min_tiles": 1, "max_tiles": 2, "template": "internvl-hf"}
GEMMA = {"visual_tokens": 256, "template": "gemma3-hf"}
NEXT = {"unpad": True, "newline": "keep"}
QWEN = {"min_pixels": 3136, "max_pixels": 12_544, "square": None, "template": "qwen_vl-lmms"}
SPLIT = {"split": True, "longest_edge": 1024, "template": "smolvlm-hf"}


def around(first):
    """Return the special tokens around tiles of models to which their places are plain text."""
    names = ("<fake_token_around_image>", "<image>", "<end_of_utterance>")
    return dict(zip(names, range(first, first + 3), strict=True))


CASES = {
    "llava-1.5-7b": (
        "llava", clip.LLAVA, clip.CLIP_PROCESSOR, CLIP_NAMES, IMAGE, VICUNA, square_inputs,
    ),
    "llava-1.5-7b, new names": (
        "llava", clip.LLAVA, clip.CLIP_PROCESSOR, NEW_CLIP_NAMES, IMAGE, VICUNA, square_inputs,
    ),
    "llava-1.5-13b": (
        "llava", clip.LLAVA_13B, clip.CLIP_PROCESSOR, CLIP_NAMES, IMAGE, VICUNA, square_inputs,
    ),
    "bakllava-v1": (
        "llava", clip.BAKLLAVA, clip.CLIP_PROCESSOR, CLIP_NAMES, IMAGE, VICUNA, square_inputs,
    ),
    "vip-llava-7b": (
        "vip-llava", clip.VIP_7B, clip.CLIP_PROCESSOR, CLIP_NAMES, IMAGE, VIP, square_inputs,
    ),
    "vip-llava-13b, new names": (
        "vip-llava", clip.VIP_13B, clip.CLIP_PROCESSOR, NEW_CLIP_NAMES, IMAGE, VIP, square_inputs,
    ),
    "llava-v1.6-mistral-7b": (
        "llava-next", clip.NEXT, clip.NEXT_PROCESSOR, CLIP_NAMES, IMAGE,
        {**NEXT, "per": "image", "template": "llava_next-mistral-hf"}, next_inputs,
    ),
    "llava-v1.6-vicuna-7b": (
        "llava-next", clip.NEXT_VICUNA_7B, clip.NEXT_PROCESSOR, CLIP_NAMES, IMAGE,
        {**NEXT, "per": "tile", "template": "llava_next-vicuna-hf"}, next_inputs,
    ),
    "llava-v1.6-vicuna-13b, new names": (
        "llava-next", clip.NEXT_VICUNA_13B, clip.NEXT_PROCESSOR, NEW_CLIP_NAMES, IMAGE,
        {**NEXT, "per": "image", "template": "llava_next-vicuna-hf"}, next_inputs,
    ),
    "llava-onevision-qwen2-7b": (
        "llava-onevision", clip.ONEVISION, clip.ONEVISION_PROCESSOR, CLIP_NAMES, VIDEO,
        {**NEXT, "template": "llava_onevision-hf"}, next_inputs,
    ),
    "llava-onevision-qwen2-7b, new names": (
        "llava-onevision", clip.ONEVISION, clip.ONEVISION_PROCESSOR, NEW_CLIP_NAMES, VIDEO,
        {**NEXT, "template": "llava_onevision-hf"}, next_inputs,
    ),
    "qwen2-vl-7b": (
        "qwen2-5-vl", qwen.QWEN_2, qwen.QWEN_PROCESSOR, QWEN_NAMES, SEEN_BY_QWEN, QWEN, qwen_inputs,
    ),
    "qwen2-vl-7b of transformers 4.47": (
        "qwen2-5-vl", qwen.QWEN_2_SAVED, qwen.QWEN_PROCESSOR, QWEN_NAMES, SEEN_BY_QWEN, QWEN,
        qwen_inputs,
    ),
    "qwen2-vl-2b, new names": (
        "qwen2-5-vl", qwen.QWEN_2_2B, qwen.QWEN_PROCESSOR, AS_THEY_ARE, SEEN_BY_QWEN, QWEN,
        qwen_inputs,
    ),
    "qwen2.5-vl-7b": (
        "qwen2-5-vl", qwen.QWEN_2_5, qwen.QWEN_EARLY_PROCESSOR, QWEN_NAMES, SEEN_BY_QWEN, QWEN,
        qwen_inputs,
    ),
    "qwen2.5-vl-7b, new names": (
        "qwen2-5-vl", qwen.QWEN_2_5_NEW, qwen.QWEN_PROCESSOR, AS_THEY_ARE, SEEN_BY_QWEN, QWEN,
        qwen_inputs,
    ),
    "qwen3-vl-4b": (
        "qwen3-vl", qwen.QWEN_3, qwen.QWEN_3_PROCESSOR, AS_THEY_ARE, SEEN_BY_QWEN, QWEN,
        qwen_inputs,
    ),
    "qwen3-vl-8b": (
        "qwen3-vl", qwen.QWEN_3_8B, qwen.QWEN_3_PROCESSOR, AS_THEY_ARE, SEEN_BY_QWEN, QWEN,
        qwen_inputs,
    ),
    "qwen3-vl-2b, new keys": (
        "qwen3-vl", qwen.QWEN_3_2B, qwen.QWEN_3_PROCESSOR, AS_THEY_ARE, SEEN_BY_QWEN, QWEN,
        qwen_inputs,
    ),
    "internvl3-1b": (
        "internvl", tiled.INTERNVL, tiled.INTERNVL_PROCESSOR, INTERNVL_NAMES, CONTEXT, TWO_TILES,
        tile_inputs,
    ),
    "internvl3-38b, new names": (
        "internvl", tiled.INTERNVL_38B, tiled.INTERNVL_PROCESSOR, AS_THEY_ARE, CONTEXT, TWO_TILES,
        tile_inputs,
    ),
    "smolvlm2-500m": (
        "idefics3", tiled.SMOLVLM, tiled.SMOLVLM_PROCESSOR, AS_THEY_ARE, AROUND, SPLIT,
        masked_inputs,
    ),
    "smolvlm-256m": (
        "idefics3", tiled.SMOLVLM_256M, tiled.IDEFICS3_PROCESSOR, AS_THEY_ARE, AROUND, SPLIT,
        masked_inputs,
    ),
    "smolvlm-2.2b": (
        "idefics3", tiled.SMOLVLM_2B, tiled.SMOLVLM_2B_PROCESSOR, AS_THEY_ARE,
        {"<|im_start|>": 1, **around(49152)}, {**SPLIT, "longest_edge": 768}, masked_inputs,
    ),
    "idefics3-8b": (
        "idefics3", tiled.IDEFICS3_8B, tiled.IDEFICS3_8B_PROCESSOR, AS_THEY_ARE,
        {"<|begin_of_text|>": 128000, **around(128256)},
        {**SPLIT, "longest_edge": 728, "template": "idefics3-hf"}, masked_inputs,
    ),
    "idefics3-8b, last processor": (
        "idefics3", tiled.IDEFICS3_8B, tiled.IDEFICS3_8B_LAST_PROCESSOR, AS_THEY_ARE,
        {"<|begin_of_text|>": 128000, **around(128256)},
        {**SPLIT, "longest_edge": 728, "template": "idefics3-hf"}, masked_inputs,
    ),
    "gemma-3-27b": (
        "gemma3", tiled.GEMMA3, tiled.GEMMA3_PROCESSOR, CLIP_NAMES, TURNS, GEMMA, gemma_inputs,
    ),
    "gemma-3-4b, new names": (
        "gemma3", tiled.GEMMA3_4B, tiled.GEMMA3_PROCESSOR, NEW_CLIP_NAMES, TURNS, GEMMA,
        gemma_inputs,
    ),
}  # fmt: skip


def written(folder, config, preprocessor, special):
    """Write a folder's files but its weights."""
    folder.mkdir()
    for name, content in (("config", config), ("preprocessor_config", preprocessor)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    marks = "<fake_token_around_image>" not in special or "<global-img>" in special
    hub.tokenizer(special, marks=marks).save_pretrained(folder)
    return folder


def in_order(config):
    """Return a configuration in the order in which transformers writes it."""
    return {
        key: in_order(value) if isinstance(value, dict) else value
        for key, value in sorted(config.items())
    }


def ended_by_hand(config):
    """Return SmolVLM-256M's configuration, of which the Hub has edited some keys, in its order."""
    whole = in_order(config)
    dtypes = {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}}
    assert whole.pop("transformers.js_config") == dtypes
    last = {key: whole.pop(key) for key in ("use_cache", "vision_config", "vocab_size")}
    vision = last["vision_config"]
    last["vision_config"] = {"use_base_siglip": vision.pop("use_base_siglip"), **vision}
    return {**whole, "transformers.js_config": dtypes, **last}


WHOLE = {  # SHA-256 of the Hub's files, as public lists of pinned files state it
    "0bde54495c54bcc346064a0d314b010d1c4d3ca7f7e583b6f711949a35352c0f": in_order(clip.LLAVA),
    "3ea1ed765b0b79834892d8060cb46162121ef01596e56ca6e168a48a8da08336": in_order(
        clip.NEXT_VICUNA_7B
    ),
    "ecef425c1d3ee91f5e05144c4d107389f9fefd04a424d5cbfc3fb6e0525b8c55": in_order(
        clip.NEXT_PROCESSOR
    ),
    "3644c108b9f0fa53e62ff422a9be6639642f0e64dab4a71f961c7911d4386384": in_order(
        clip.ONEVISION_PROCESSOR
    ),
    "77d9ec7321cc572e3579e2c84799c9cadaded63c49ce93b101733349fc330c43": qwen.QWEN_2_5,
    "f2058c716eef96ccaed1cc1e2d0c08306b62586d535b28d9d08e691b2fab7ca0": qwen.QWEN_PROCESSOR,
    "edac7703329133edfc53e46ac0081835144c99d7eebf28b71c732694d435224d": in_order(qwen.QWEN_3),
    "27225450ac9c6529872ee1924fcb0962ff5634834f817040f444118116f4e516": qwen.QWEN_3_PROCESSOR,
    "b70fb4bfde88df9eeebc9d8ff523733b8bf70d6c9b06c610325960e06ae9db52": ended_by_hand(
        tiled.SMOLVLM_256M
    ),
    "6cb6e36d6fcb88ca1502c4a26750715dc3e7dedddc9a8f17b27d8d167d1457e7": in_order(
        tiled.IDEFICS3_PROCESSOR
    ),
    "ea6bc1237e96247f6258de3e202e2e62b93d6f386dc47e7b36b5588bf3a15e17": in_order(tiled.SMOLVLM),
    "149e315d9410368e5491455bb06e0f763426e9e56cca731c13b24404a29b6374": in_order(
        tiled.SMOLVLM_PROCESSOR
    ),
    "cabd884f5e0d4f01a5bd7fe14bd4bacd0bd83f3725a02acbdc4e72dc001835fa": in_order(tiled.GEMMA3),
    "f688d6bb20c5017601c4011de7ca656da8485b540b05013efdaf986c0fcc918d": in_order(
        tiled.GEMMA3_PROCESSOR
    ),
}


@pytest.mark.parametrize("digest", WHOLE)
def test_configurations_are_the_hubs_own_byte_for_byte(digest):
    texts = [json.dumps(WHOLE[digest], indent=spaces) for spaces in (2, 4)]
    texts += [text + "\n" for text in texts]
    assert digest in [hashlib.sha256(text.encode()).hexdigest() for text in texts]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_checkpoint_of_the_hub_answers_as_transformers_own_model(name, tmp_path):
    from transformers import AutoConfig, AutoModelForImageTextToText

    family, config, preprocessor, names, special, settings, inputs = CASES[name]
    settings = {"dtype": "float32", "visual_tokens": None, **settings}
    check_model(family, written(tmp_path / "whole", config, preprocessor, special), settings)
    folder = written(tmp_path / "thin", hub.thin(config), preprocessor, special)
    read = AutoConfig.from_pretrained(folder)
    if name == "vip-llava-7b":  # of which transformers 4 read no single layer
        read.vision_feature_layer = clip.VIP_13B["vision_feature_layers"]
    stored = read.dtype or torch.bfloat16
    reference = noisy(AutoModelForImageTextToText.from_config(read, dtype=torch.float32))
    tensors = {}
    for own, value in reference.named_parameters():  # tied heads once, as checkpoints have them
        value.data = value.data.to(stored).float()
        for pattern, replacement in names:
            own = re.sub(pattern, replacement, own)
        tensors[own] = value.data.to(stored)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    model = load_model(family, folder, settings, CPU)
    images = [picture(0, (96, 64))]
    encoded, asked, session = asked_about(model, images, tmp_path / "features.safetensors")
    case = SimpleNamespace(
        model=model, images=images, encoded=encoded, session=session,
        entry=SimpleNamespace(inputs=inputs),
    )  # fmt: skip
    order = [np.arange(len(encoded[0].features), dtype=np.int16)]
    answers = run(case, "full", "all", order)
    expected = plain(case, asked.iloc[2], reference)
    np.testing.assert_allclose(answers.logits[2], expected, atol=2e-5)
