"""How weights get from their files to the device."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaConfig, LlavaForConditionalGeneration

from helpers.tiny_llava import SETTINGS, TEXTS, picture, tiny_llava
from prunecal.core.errors import PrunecalError
from prunecal.models import load_model
from prunecal.models._checkpoint import load_weights

CPU = torch.device("cpu")
MB = 2**20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_llava(folder)
    return folder


def test_every_tensor_is_the_checkpoints_and_every_buffer_the_librarys(folder):
    config = LlavaConfig.from_pretrained(folder)
    loaded = load_weights(LlavaForConditionalGeneration, folder, config, "float32", CPU)
    reference = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    assert torch.equal(*(model.lm_head.weight for model in (loaded, reference)))
    for kind in ("named_parameters", "named_buffers"):
        values, expected = (dict(getattr(model, kind)()) for model in (loaded, reference))
        assert values.keys() == expected.keys()
        assert all(torch.equal(values[name], expected[name]) for name in expected)
    assert not any(value.requires_grad for value in loaded.parameters())


def test_weights_are_no_view_of_their_file(folder, tmp_path):
    copy = tmp_path / "model"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    config = LlavaConfig.from_pretrained(copy)
    loaded = load_weights(LlavaForConditionalGeneration, copy, config, "float32", CPU)
    before = loaded.lm_head.weight.clone()
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-4096, 2)
        file.write(b"\1" * 4096)
    (copy / "model.safetensors").write_bytes(b"")
    assert torch.equal(loaded.lm_head.weight, before)


def test_encode_and_infer_load_what_they_need_and_agree_with_the_whole(folder):
    whole, vision, language = (
        load_model("llava", folder, SETTINGS, CPU, part) for part in ("whole", "vision", "language")
    )
    count = {
        part: sum(value.numel() for value in model.model.parameters())
        for part, model in (("whole", whole), ("vision", vision), ("language", language))
    }
    tower = sum(value.numel() for value in whole.model.model.vision_tower.parameters())
    projector = sum(v.numel() for v in whole.model.model.multi_modal_projector.parameters())
    assert count["vision"] == tower + projector
    assert count["language"] == count["whole"] - tower
    with torch.inference_mode():
        (encoded,), (again,) = (model.encode([picture(0)]) for model in (whole, vision))
        assert torch.equal(again.features, encoded.features)
        assert torch.equal(again.saliency, encoded.saliency)
        features = encoded.features
        assert torch.equal(language.project(features), whole.project(features))
        ids = torch.tensor(whole.tokenize(TEXTS[:1])[1][0])
        states = [model.decoder.prefill(model.decoder.embed(ids)) for model in (whole, language)]
    for (keys, values), (other_keys, other_values) in zip(*states, strict=True):
        assert torch.equal(keys, other_keys)
        assert torch.equal(values, other_values)


@pytest.mark.parametrize(("part", "lost"), [("vision", "lm_head"), ("language", "vision_tower")])
def test_a_part_of_a_checkpoint_that_does_not_fit_is_refused_as_the_whole(
    folder, tmp_path, part, lost
):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    name = next(name for name in tensors if lost in name)
    del tensors[name]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(PrunecalError, match=f"lacks the tensor .*{lost}"):
        load_model("llava", tmp_path, SETTINGS, CPU, part)


def resident(line):
    """Return a line of this process's status, VmRSS or VmHWM, in bytes."""
    return int(re.search(rf"{line}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_loading_takes_little_more_main_memory_than_the_device_holds(folder, tmp_path, dtype):
    """At 7B the largest tensor, 32,064 x 4,096 in float32, is 0.5 GB: far less than 4 GB more."""
    config = LlavaConfig.from_pretrained(folder)
    text = config.text_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 1024, 2816, 8
    text.head_dim, config.dtype = 1024 // text.num_attention_heads, "float16"
    with torch.device("meta"):
        shapes = LlavaForConditionalGeneration(config).state_dict()
    half = {name: torch.zeros(value.shape, dtype=torch.float16) for name, value in shapes.items()}
    save_file(half, tmp_path / "model.safetensors", {"format": "pt"})
    largest = max(value.numel() for value in half.values()) * 4
    del half
    held = sum(value.numel() for value in shapes.values()) * (2 if dtype == "float16" else 4)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    model = load_weights(LlavaForConditionalGeneration, tmp_path, config, dtype, CPU)
    beyond = resident("VmHWM") - before - held
    assert beyond < 2 * largest + 60 * MB < held / 2, beyond / MB
    assert model.lm_head.weight.dtype == getattr(torch, dtype)
