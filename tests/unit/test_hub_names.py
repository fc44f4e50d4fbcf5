"""Checkpoints as they lie on the Hub: older names of tensors, older configurations."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import tiny_families
from prunecal.core import plugins
from prunecal.core.errors import PrunecalError
from prunecal.models import check_model, load_model

CPU = torch.device("cpu")
OF_LLAVA = ("language_model.model.", "vision_tower.", "multi_modal_projector.")
OF_QWEN = ("visual.", "model.layers.", "lm_head.")
NEXT = {"unpad": True, "newline": "keep", "per": "image"}
QWEN = {"min_pixels": 64, "max_pixels": 12_800, "square": None, "template": "qwen_vl-lmms"}
SPLIT = {"split": True, "longest_edge": None, "template": "idefics3-hf"}
OF_IDEFICS = ("model.text_model.", "model.vision_model.", "model.connector.", "lm_head.")

CASES = {  # how it is made, the family, its settings, and how tensors' names on the Hub begin
    "llava": (
        tiny_families.llava,
        "llava",
        {"image": "pad", "visual_tokens": 36, "template": "vicuna_v1"},
        OF_LLAVA,
    ),
    "bakllava": (
        lambda folder: tiny_families.llava(folder, "mistral"),
        "llava",
        {"image": "pad", "visual_tokens": 36, "template": "vicuna_v1"},
        OF_LLAVA,
    ),
    "llava_next": (
        tiny_families.llava_next,
        "llava-next",
        {**NEXT, "template": "llava_next-vicuna-hf"},
        OF_LLAVA,
    ),
    "llava_next on Mistral": (
        lambda folder: tiny_families.llava_next(folder, "mistral"),
        "llava-next",
        {**NEXT, "template": "llava_next-mistral-hf"},
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
        QWEN,
        OF_QWEN,
    ),
    "qwen2_5_vl": (tiny_families.qwen, "qwen2-5-vl", QWEN, OF_QWEN),
    "qwen3_vl": (
        lambda folder: tiny_families.qwen(folder, "qwen3_vl"),
        "qwen3-vl",
        QWEN,
        ("model.visual.", "model.language_model.", "lm_head."),
    ),
    "idefics3": (tiny_families.idefics3, "idefics3", SPLIT, OF_IDEFICS),
    "smolvlm": (
        lambda folder: tiny_families.idefics3(folder, "smolvlm"),
        "idefics3",
        SPLIT,
        OF_IDEFICS,
    ),
}
ONE_NAME = {"qwen3_vl", "idefics3", "smolvlm"}  # whose tensors were never renamed


def of_before(config):
    """Return a configuration as the Hub's first exports have it.

    Without what the text model's class has by default and what later versions added, with the
    rotary settings and the type at their former places.
    """
    older = {key: value for key, value in config.items() if key != "dtype"}
    older |= {"torch_dtype": config["dtype"], "transformers_version": "4.45.0"}
    text = {key: value for key, value in config["text_config"].items() if key != "layer_types"}
    rope = text.pop("rope_parameters")
    whole = rope.get("full_attention", rope)
    text["rope_theta"] = whole["rope_theta"]
    if "sliding_attention" in rope:
        text["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        text["sliding_window_pattern"] = 2
    if "mrope_section" in rope:
        interleaved = "mrope_interleaved" in rope  # only of Qwen3-VL
        kind = (
            {"mrope_interleaved": True, "rope_type": "default"}
            if interleaved
            else {"type": "mrope"}
        )
        text["rope_scaling"] = {"mrope_section": rope["mrope_section"], **kind}
    for key, value in (("attention_dropout", 0.0), ("use_cache", True), ("mlp_bias", False)):
        if text.get(key) == value:
            text.pop(key)
    older["text_config"] = text
    return older


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_older_and_newer_names_and_configurations_are_the_same_model(name, tmp_path):
    make, family, settings, names = CASES[name]
    reference = make(tmp_path).state_dict()
    path, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    older = set(load_file(path))  # transformers saves under the names of the Hub's first exports
    assert all(any(tensor.startswith(start) for tensor in older) for start in names)
    settings = {"visual_tokens": None, "dtype": "float32", **settings}
    loaded = [load_model(family, tmp_path, settings, CPU).model]
    newer = {tensor: values.clone() for tensor, values in reference.items()}
    if name == "gemma3":  # its head is its embedding
        newer.pop("lm_head.weight", None)
    if name not in ONE_NAME:
        assert newer.keys() != older
        save_file(newer, path, {"format": "pt"})
    config.write_text(json.dumps(of_before(json.loads(config.read_text()))))
    loaded.append(load_model(family, tmp_path, settings, CPU).model)
    for model in loaded:
        state = model.state_dict()
        assert state.keys() == reference.keys()
        for tensor, values in reference.items():
            assert torch.equal(state[tensor], values), tensor
    new, old = (model.config.get_text_config().to_dict() for model in loaded)
    old["rope_parameters"].pop("type", None)  # its former name, beside the present one
    for key in ("rope_parameters", "rms_norm_eps", "sliding_window", "layer_types", "head_dim"):
        assert old.get(key) == new.get(key), key


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bakllava", "qwen3_vl", "gemma3"])
def test_what_loading_would_refuse_is_refused_before_there_are_weights(name, tmp_path):
    make, family, settings, _ = CASES[name]
    make(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    settings = {"visual_tokens": None, "dtype": "float32", **settings}
    check_model(family, tmp_path, settings)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": 1e4,
        "partial_rotary_factor": 0.5,
        "mrope_section": [2, 3, 3],
    }
    if name == "gemma3":
        del config["text_config"]["rope_parameters"]
        config["text_config"]["final_logit_softcapping"] = 30.0
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(PrunecalError, match="which the engine does not compute exactly"):
        check_model(family, tmp_path, settings)


def test_every_family_has_a_check_before_the_download():
    for name in plugins.names("models"):
        assert callable(plugins.load("models", name).check), name


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
    settings = {**QWEN, "visual_tokens": None, "dtype": "float32"}
    decoder = load_model("qwen2-5-vl", tmp_path, settings, CPU).decoder
    assert (decoder.axes, len(decoder.layers)) == (3, 4)
