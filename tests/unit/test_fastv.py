import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from prunecal.core.errors import PrunecalError
from prunecal.strategies.fastv import fastv_logits

VECTORS = Path(__file__).parents[1] / "vectors"
EXPECTED = json.loads((VECTORS / "fastv_expected.json").read_text())
CASES = {
    (case["K"], case["keep"], case["prompt"]): case["kept_image_idx"] for case in EXPECTED["cases"]
}


@pytest.fixture(scope="module")
def arrays():
    return np.load(VECTORS / "fastv_expected.npz")


def make_llama(implementation="sdpa"):
    settings = {key: EXPECTED["config"][key] for key in (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "num_key_value_heads", "rms_norm_eps",
    )}  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": EXPECTED["config"]["rope_theta"]}
    config = LlamaConfig(**settings, rope_parameters=rope, tie_word_embeddings=False)
    config._attn_implementation = implementation
    llama = LlamaForCausalLM(config).eval().requires_grad_(requires_grad=False)
    llama.load_state_dict(load_file(VECTORS / "fastv_tiny_llama.safetensors"))
    return llama


@pytest.fixture(scope="module")
def llama():
    return make_llama()


@pytest.fixture(scope="module")
def prompts(arrays):
    return torch.from_numpy(arrays["inputs_embeds"])


@pytest.fixture(scope="module")
def is_image():
    layout = EXPECTED["config"]["layout"]
    image = torch.zeros(sum(layout.values()), dtype=torch.bool)
    image[layout["system"] : layout["system"] + layout["image"]] = True
    return image


@pytest.mark.parametrize(("layer", "budget", "prompt"), CASES)
def test_kept_tokens_and_logits_equal_the_official_code(
    llama, prompts, is_image, arrays, layer, budget, prompt
):
    kept, logits = fastv_logits(llama, prompts[prompt][None], is_image, layer, budget)
    assert kept.tolist() == CASES[layer, budget, prompt]
    official = arrays[f"K{layer}_keep{budget}_p{prompt}/official_inplace_last_logits"]
    np.testing.assert_allclose(logits.numpy(), official.ravel(), atol=1e-4)


@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize("two_pass", [False, True])
def test_budget_of_all_tokens_equals_no_pruning(llama, prompts, is_image, layer, two_pass):
    embeds = prompts[0][None]
    kept, logits = fastv_logits(llama, embeds, is_image, layer, 36, two_pass=two_pass)
    assert kept.tolist() == list(range(36))
    plain = llama(inputs_embeds=embeds).logits[0, -1]
    torch.testing.assert_close(logits, plain, atol=1e-4, rtol=0)


def test_two_passes_equal_a_plain_pass_over_the_pruned_prompt(prompts, is_image):
    eager, embeds = make_llama("eager"), prompts[0][None]
    kept, logits = fastv_logits(eager, embeds, is_image, 2, 9, two_pass=True)
    scores = eager(inputs_embeds=embeds, output_attentions=True).attentions[1]
    image = scores[0, :, -1].mean(0)[is_image]
    assert kept.tolist() == sorted(image.topk(9).indices.tolist())
    seen = torch.cat((torch.arange(10), kept + 10, torch.arange(46, 58)))
    plain = eager(inputs_embeds=embeds[:, seen], position_ids=seen[None]).logits[0, -1]
    torch.testing.assert_close(logits, plain, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 0}, "stage 1 leaves 0 of 36 visual tokens"),
        ({"budget": 37}, "stage 1 leaves 37 of 36 visual tokens"),
        ({"layer": 4}, "layer 4 is not below the model's depth of 4"),
    ],
)
def test_out_of_range_is_refused_in_words(llama, prompts, is_image, change, message):
    with pytest.raises(PrunecalError, match=message):
        fastv_logits(llama, prompts[0][None], is_image, **change)


def test_an_image_in_two_pieces_is_refused(llama, prompts, is_image):
    torn = is_image.clone()
    torn[20] = False
    with pytest.raises(PrunecalError, match="one run of visual tokens"):
        fastv_logits(llama, prompts[0][None], torn)
