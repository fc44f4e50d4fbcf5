"""Checkpoints with the configurations and the tensor names of the Hub load and answer exactly."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from helpers import hub_configurations as hub
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
SQUARE = {"image": "pad", "visual_tokens": 576}
NEXT = {"unpad": True, "newline": "keep"}
QWEN = {"min_pixels": 3136, "max_pixels": 12_544, "square": None, "template": "qwen_vl-lmms"}
SPLIT = {"split": True, "longest_edge": 1024, "template": "smolvlm-hf"}
CASES = {
    "llava-1.5-7b": (
        "llava", hub.LLAVA, hub.CLIP_PROCESSOR, CLIP_NAMES, IMAGE,
        {**SQUARE, "template": "vicuna_v1"}, square_inputs,
    ),
    "llava-1.5-7b, new names": (
        "llava", hub.LLAVA, hub.CLIP_PROCESSOR, NEW_CLIP_NAMES, IMAGE,
        {**SQUARE, "template": "vicuna_v1"}, square_inputs,
    ),
    "vip-llava-7b": (
        "vip-llava", hub.VIP, hub.CLIP_PROCESSOR, CLIP_NAMES, IMAGE,
        {**SQUARE, "template": "vip_llava-hf"}, square_inputs,
    ),
    "llava-v1.6-mistral-7b": (
        "llava-next", hub.NEXT, hub.NEXT_PROCESSOR, CLIP_NAMES, IMAGE,
        {**NEXT, "per": "image", "template": "llava_next-mistral-hf"}, next_inputs,
    ),
    "llava-onevision-qwen2-7b": (
        "llava-onevision", hub.ONEVISION, hub.ONEVISION_PROCESSOR, CLIP_NAMES,
        CHAT | {"<image>": 151646, "<video>": 151647},
        {**NEXT, "template": "llava_onevision-hf"}, next_inputs,
    ),
    "qwen2-vl-7b": (
        "qwen2-5-vl", hub.QWEN_2, hub.QWEN_PROCESSOR, QWEN_NAMES, SEEN_BY_QWEN, QWEN, qwen_inputs,
    ),
    "qwen2.5-vl-7b": (
        "qwen2-5-vl", hub.QWEN_2_5, hub.QWEN_EARLY_PROCESSOR, QWEN_NAMES, SEEN_BY_QWEN, QWEN,
        qwen_inputs,
    ),
    "qwen2.5-vl-7b, new names": (
        "qwen2-5-vl", hub.QWEN_2_5_NEW, hub.QWEN_PROCESSOR, AS_THEY_ARE, SEEN_BY_QWEN, QWEN,
        qwen_inputs,
    ),
    "qwen3-vl-4b": (
        "qwen3-vl", hub.QWEN_3, hub.QWEN_3_PROCESSOR, AS_THEY_ARE, SEEN_BY_QWEN, QWEN, qwen_inputs,
    ),
    "internvl3-1b": (
        "internvl", hub.INTERNVL, hub.INTERNVL_PROCESSOR, INTERNVL_NAMES,
        CHAT | {"<img>": 151665, "</img>": 151666, "<IMG_CONTEXT>": 151667},
        {"min_tiles": 1, "max_tiles": 2, "template": "internvl-hf"}, tile_inputs,
    ),
    "smolvlm2-500m": (
        "idefics3", hub.SMOLVLM, hub.SMOLVLM_PROCESSOR, AS_THEY_ARE, AROUND, SPLIT, masked_inputs,
    ),
    "smolvlm-500m": (
        "idefics3", hub.IDEFICS3, hub.IDEFICS3_PROCESSOR, AS_THEY_ARE, AROUND, SPLIT, masked_inputs,
    ),
    "gemma-3-27b": (
        "gemma3", hub.GEMMA3, hub.GEMMA3_PROCESSOR, CLIP_NAMES,
        {"<start_of_turn>": 105, "<end_of_turn>": 106, "<start_of_image>": 255999,
         "<end_of_image>": 256000, "<image_soft_token>": 262144},
        {"visual_tokens": 256, "template": "gemma3-hf"}, gemma_inputs,
    ),
}  # fmt: skip


def written(folder, config, preprocessor, special):
    """Write a folder's files but its weights."""
    folder.mkdir()
    for name, content in (("config", config), ("preprocessor_config", preprocessor)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    hub.tokenizer(special).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_checkpoint_of_the_hub_answers_as_transformers_own_model(name, tmp_path):
    from transformers import AutoConfig, AutoModelForImageTextToText

    family, config, preprocessor, names, special, settings, inputs = CASES[name]
    settings = {"dtype": "float32", "visual_tokens": None, **settings}
    check_model(family, written(tmp_path / "whole", config, preprocessor, special), settings)
    folder = written(tmp_path / "thin", hub.thin(config), preprocessor, special)
    read = AutoConfig.from_pretrained(folder)
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
    for at in (0, 2):
        expected = plain(case, asked.iloc[at], reference)
        np.testing.assert_allclose(answers.logits[at], expected, atol=2e-5)
