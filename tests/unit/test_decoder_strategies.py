"""Strategies that drop tokens inside the decoder, against the official code's numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from prunecal.strategies import decode

VECTORS = Path(__file__).parents[1] / "vectors"
CONFIG = json.loads((VECTORS / "fastv_expected.json").read_text())["config"]
METHODS = ("pdrop", "dart", "sparsevlm")
EXPECTED = {name: json.loads((VECTORS / f"{name}_expected.json").read_text()) for name in METHODS}
ARRAYS = {name: np.load(VECTORS / f"{name}_expected.npz") for name in METHODS}
P0 = np.load(VECTORS / "fastv_expected.npz")["inputs_embeds"][:1]
CASES = [(name, case) for name in METHODS for case in EXPECTED[name]["cases"]]


@pytest.fixture(scope="module")
def llamas():
    """Return the tiny Llama of the vectors by its number of heads."""
    weights = load_file(VECTORS / "fastv_tiny_llama.safetensors")
    made = {}
    for heads in (CONFIG["num_attention_heads"], 16):
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
        rope = {"rope_type": "default", "rope_theta": CONFIG["rope_theta"]}
        config = LlamaConfig(
            **{key: CONFIG[key] for key in sizes},
            num_attention_heads=heads,
            num_key_value_heads=heads,
            rms_norm_eps=CONFIG["rms_norm_eps"],
            rope_parameters=rope,
            tie_word_embeddings=False,
        )
        made[heads] = LlamaForCausalLM(config).eval().requires_grad_(requires_grad=False)
        made[heads].load_state_dict(weights)
    return made


def prompt_of(name, case):
    """Return a case's prompt and which of its tokens are visual."""
    prompt, layout = case["prompt"], EXPECTED[name]["layouts"][case["prompt"]]
    embeds = P0 if prompt == "p0" else ARRAYS[name][f"inputs_embeds/{prompt}"]
    is_image = torch.zeros(layout["length"], dtype=torch.bool)
    is_image[layout["image_start"] : layout["image_start"] + layout["image_tokens"]] = True
    return torch.from_numpy(embeds), is_image


@pytest.mark.parametrize(
    ("name", "case"), CASES, ids=[f"{name}-{case['key']}" for name, case in CASES]
)
def test_kept_tokens_and_logits_equal_the_official_code(llamas, name, case):
    embeds, is_image = prompt_of(name, case)
    params = dict(case["params"])
    if "pivots_in_order" in case and not case["prompt"].startswith("s"):
        params["order"] = case["pivots_in_order"]
    llama = llamas[16 if params.get("plus") else CONFIG["num_attention_heads"]]
    kept, logits = decode(name, llama, embeds, is_image, **params)
    assert [one.tolist() for one in kept] == case["kept"]
    np.testing.assert_allclose(logits.numpy(), ARRAYS[name][f"{case['key']}/logits"], atol=5e-5)
