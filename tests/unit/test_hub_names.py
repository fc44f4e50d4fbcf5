"""Checkpoints as they lie on the Hub: older names of tensors, older configurations."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import tiny_families
from prunecal.models import load_model

CPU = torch.device("cpu")
OF_LLAVA = ("language_model.model.", "vision_tower.", "multi_modal_projector.")
OF_QWEN = ("visual.", "model.layers.", "lm_head.")
NEXT = {"unpad": True, "newline": "keep"}
QWEN = {"min_pixels": 64, "max_pixels": 12_800, "square": None}
CASES = {
    "llava_next": (
        tiny_families.llava_next,
        "llava-next",
        {**NEXT, "template": "llava_next-vicuna-hf"},
        OF_LLAVA,
    ),
    "llava_onevision": (
        tiny_families.llava_onevision,
        "llava-onevision",
        {**NEXT, "template": "llava_onevision-hf"},
        OF_LLAVA,
    ),
    "vipllava": (
        tiny_families.vip_llava,
        "vip-llava",
        {"image": "pad", "visual_tokens": 36, "template": "vip_llava-hf"},
        OF_LLAVA,
    ),
    "gemma3": (
        tiny_families.gemma3,
        "gemma3",
        {"visual_tokens": 9, "template": "gemma3-hf"},
        OF_LLAVA,
    ),
    "internvl": (
        tiny_families.internvl,
        "internvl",
        {"min_tiles": 1, "max_tiles": 6, "template": "internvl-hf"},
        OF_LLAVA,
    ),
    "qwen2_vl": (
        lambda folder: tiny_families.qwen(folder, "qwen2_vl"),
        "qwen2-5-vl",
        {**QWEN, "template": "qwen_vl-lmms"},
        OF_QWEN,
    ),
    "qwen2_5_vl": (
        tiny_families.qwen,
        "qwen2-5-vl",
        {**QWEN, "template": "qwen_vl-lmms"},
        OF_QWEN,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_weights_under_older_and_newer_names_are_the_same_model(name, tmp_path):
    make, family, settings, names = CASES[name]
    reference = make(tmp_path).state_dict()
    path = tmp_path / "model.safetensors"
    older = set(load_file(path))  # transformers saves under the names of the Hub's first exports
    assert all(any(tensor.startswith(start) for tensor in older) for start in names)
    settings = {"visual_tokens": None, "dtype": "float32", **settings}
    loaded = [load_model(family, tmp_path, settings, CPU).model.state_dict()]
    newer = {tensor: values.clone() for tensor, values in reference.items()}
    if name == "gemma3":  # its head is its embedding
        newer.pop("lm_head.weight", None)
    assert newer.keys() != older
    save_file(newer, path, {"format": "pt"})
    loaded.append(load_model(family, tmp_path, settings, CPU).model.state_dict())
    for state in loaded:
        assert state.keys() == reference.keys()
        for tensor, values in reference.items():
            assert torch.equal(state[tensor], values), tensor


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl"])
def test_qwens_first_configuration_has_the_text_model_at_its_top(kind, tmp_path):
    tiny_families.qwen(tmp_path, kind)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    text.pop("model_type")
    text.pop("layer_types", None)
    config |= {key: value for key, value in text.items() if key not in config}
    config |= {
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
    }
    path.write_text(json.dumps(config))
    settings = {**QWEN, "visual_tokens": None, "dtype": "float32", "template": "qwen_vl-lmms"}
    decoder = load_model("qwen2-5-vl", tmp_path, settings, CPU).decoder
    assert (decoder.axes, len(decoder.layers)) == (3, 4)
