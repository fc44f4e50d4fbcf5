"""Signals of the vision tower against what transformers' own forward gives."""

import pytest
import torch

from helpers.tiny_llava import SETTINGS, picture, tiny_llava
from prunecal.models._clip_signals import early_layer
from prunecal.models.llava import Llava

NAMES = ["cls", "keys", "attention", "early_attention", "last_keys", "last_cls_query"]


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    tiny_llava(folder)
    return Llava(folder, SETTINGS, torch.device("cpu"))


def test_signals_equal_the_states_and_attentions_of_the_tower(llava):
    pixels = llava.pixels([picture(seed) for seed in range(2)])
    tower = llava.model.model.vision_tower
    tower.set_attn_implementation("eager")
    with torch.inference_mode():
        features, saliency, signals = llava.signals_of_pixels(pixels, NAMES)
        plain = llava.encode_pixels(pixels)
        output = tower(pixels, output_hidden_states=True, output_attentions=True)
    assert torch.equal(features, plain[0])
    assert torch.equal(saliency, plain[1])
    states, attentions = output.hidden_states, output.attentions
    layers = getattr(tower, "vision_model", tower).encoder.layers
    close = {"atol": 1e-5, "rtol": 1e-4}
    torch.testing.assert_close(features, states[-2][:, 1:], **close)
    torch.testing.assert_close(signals["cls"], states[-2][:, :1], **close)
    received = [one.mean(dim=(1, 2))[:, 1:] for one in attentions]
    torch.testing.assert_close(signals["attention"], received[-2], **close)
    torch.testing.assert_close(signals["early_attention"], received[early_layer(3)], **close)
    keys = layers[-2].self_attn.k_proj(layers[-2].layer_norm1(states[-3]))
    mean = keys.unflatten(-1, (4, 12)).mean(dim=2)
    torch.testing.assert_close(signals["keys"], mean, **close)
    last = layers[-1].layer_norm1(states[-2])
    torch.testing.assert_close(signals["last_keys"], layers[-1].self_attn.k_proj(last), **close)
    query = layers[-1].self_attn.q_proj(last[:, :1])
    torch.testing.assert_close(signals["last_cls_query"], query, **close)


def test_the_early_layer_is_the_official_one_at_the_official_depth():
    assert early_layer(24) == 8
    assert [early_layer(depth) for depth in (1, 4, 12)] == [0, 1, 4]
