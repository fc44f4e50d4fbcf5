"""Configurations that a model family does not compute as transformers does are refused by name.

When the folder is checked, which is before there are weights, and when the model is loaded.
"""

import json
import re
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from helpers import tiny_families
from prunecal.core.errors import PrunecalError
from prunecal.engine.images import Images
from prunecal.models import check_model, load_model
from prunecal.models._prompting import Prompting
from prunecal.models.llava_onevision import LlavaOnevision
from prunecal.storage import arrays
from prunecal.storage.spooled import Spool

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
PROCESSOR = ("preprocessor_config.json", "processor_config.json")
CPU = torch.device("cpu")
SQUARE = {"image": "pad", "visual_tokens": 36}
FAMILIES = {
    "llava": (tiny_families.llava, {**SQUARE, "template": "vicuna_v1"}),
    "vip-llava": (tiny_families.vip_llava, {**SQUARE, "template": "vip_llava-hf"}),
    "llava-next": (
        tiny_families.llava_next,
        {"unpad": True, "newline": "keep", "per": "image", "template": "llava_next-vicuna-hf"},
    ),
    "llava-onevision": (
        tiny_families.llava_onevision,
        {"unpad": True, "newline": "keep", "template": "llava_onevision-hf"},
    ),
    "internvl": (
        tiny_families.internvl,
        {"min_tiles": 1, "max_tiles": 6, "template": "internvl-hf"},
    ),
    "gemma3": (tiny_families.gemma3, {"visual_tokens": 9, "template": "gemma3-hf"}),
    "idefics3": (
        tiny_families.idefics3,
        {"split": True, "longest_edge": None, "template": "idefics3-hf"},
    ),
}
FAMILIES["qwen2-5-vl"] = (
    tiny_families.qwen,
    {"min_pixels": 64, "max_pixels": 12_800, "square": None, "template": "qwen_vl-lmms"},
)
UNKNOWN = {  # model types, and what transformers calls their decoders
    "bloom": "BloomModel",
    "cohere": "CohereModel",
    "deepseek_v3": "DeepseekV3Model",
    "falcon": "FalconModel",
    "gemma2": "Gemma2Model",
    "gemma3": "Gemma3Model",  # whole multimodal models
    "qwen2_vl": "Qwen2VLModel",
    "glm4": "Glm4Model",
    "gpt_neox": "GPTNeoXModel",
    "granite": "GraniteModel",
    "llama4_text": "Llama4TextModel",
    "mamba": "MambaModel",
    "mixtral": "MixtralModel",
    "mpt": "MptModel",
    "nemotron": "NemotronModel",
    "olmo2": "Olmo2Model",
    "phi3": "Phi3Model",
    "qwen3_next": "Qwen3NextModel",
    "smollm3": "SmolLM3Model",
    "stablelm": "StableLmModel",
}
CLIP, SIGLIP = {"model_type": "clip_vision_model"}, {"model_type": "siglip_vision_model"}
CHANGES = [  # family, what its config.json has instead, what the message says
    ("llava", {"vision_config": SIGLIP}, "vision tower is a 'siglip_vision_model'"),
    ("vip-llava", {"vision_config": SIGLIP}, "are supported with a 'clip_vision_model'"),
    ("llava-next", {"vision_config": SIGLIP}, "vision tower is a 'siglip_vision_model'"),
    ("gemma3", {"vision_config": CLIP}, "vision tower is a 'clip_vision_model'"),
    ("gemma3", {"vision_config": {"image_size": 48}}, "gives 24 x 24 pixels, but .* 48 x 48"),
    ("internvl", {"vision_config": {"image_size": [48, 24]}}, "takes 24 x 48"),
    ("llava-next", {"vision_feature_layer": 0}, "from layer 0 of 3"),
    ("llava-onevision", {"vision_feature_layer": -4}, "from layer -4 of 3"),
    ("llava-onevision", {"vision_aspect_ratio": "anyres"}, "vision_aspect_ratio 'anyres'"),
    ("llava-next", {"image_grid_pinpoints": [[48, 24], [24, 48]]}, "cuts tiles for the sizes"),
    ("llava-next", {"text_config": {"vocab_size": 20}}, "ids up to .* has embeddings for 20"),
    (
        "qwen2-5-vl",
        {"vision_config": {"spatial_merge_size": 4}},
        "merge_size 2, but its .* tower 4",
    ),
    ("idefics3", {"text_config": {"vocab_size": 20}}, "ids up to .* has embeddings for 20"),
    ("llava-next", {"text_config": {"logits_scaling": 8.0}}, "LlamaModel has logits_scaling"),
    ("llava", {"text_config": {"no_rope_layers": [1, 0]}}, "LlamaModel has no_rope_layers"),
    (
        "llava",
        {"text_config": {"layer_types": ["sliding_attention"] * 4, "sliding_window": 8}},
        "LlamaModel does not read its layer_types",
    ),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a function that gives the folder of a family, made once, without its weights."""
    made = {}

    def folder(family):
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            FAMILIES[family][0](made[family])
            (made[family] / "model.safetensors").unlink()
        return made[family]

    return folder


@pytest.fixture
def changed(folders, tmp_path):
    """Return a function that copies a family's folder with changes of its config.json."""

    def change(family, **changes):
        for path in folders(family).iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        config = json.loads((tmp_path / "config.json").read_text())
        for key, value in changes.items():
            config[key] = config[key] | value if isinstance(value, dict) else value
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path, {"dtype": "float32", "visual_tokens": None, **FAMILIES[family][1]}

    return change


@pytest.mark.parametrize("family", ["llava", "llava-next"])
@pytest.mark.parametrize("kind", UNKNOWN)
def test_a_decoder_of_another_kind_is_refused_by_its_name(kind, family, changed):
    folder, settings = changed(family)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] = {"model_type": kind, "vocab_size": config["text_config"]["vocab_size"]}
    (folder / "config.json").write_text(json.dumps(config))
    fault = f"^{UNKNOWN[kind]} is a decoder of another kind, which the engine does not compute"
    with pytest.raises(PrunecalError, match=fault):
        check_model(family, folder, settings)
    with pytest.raises(PrunecalError, match=fault):
        load_model(family, folder, settings, CPU)


@pytest.mark.parametrize(("family", "changes", "fault"), CHANGES)
def test_a_configuration_that_the_family_does_not_know_is_refused(family, changes, fault, changed):
    folder, settings = changed(family)
    check_model(family, folder, settings)
    folder, settings = changed(family, **changes)
    with pytest.raises(PrunecalError, match=fault):
        check_model(family, folder, settings)


def test_an_image_too_narrow_for_a_grid_of_tiles_is_named():
    model = LlavaOnevision.__new__(LlavaOnevision)
    model.settings = {"unpad": True}
    vision = SimpleNamespace(image_size=4, patch_size=4)
    model.model = SimpleNamespace(
        config=SimpleNamespace(
            vision_config=vision, image_grid_pinpoints=[[4, 8]], vision_aspect_ratio="anyres_max_1"
        )
    )
    with pytest.raises(PrunecalError, match="of 9 x 4 pixels is too long and narrow .* crop it"):
        model._map(torch.zeros(2, 1, 1), [4, 9])


def test_a_tokenizer_that_ends_every_text_is_refused(changed):
    folder, settings = changed("idefics3")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    tokenizer["post_processor"]["single"].append(end)
    tokenizer["post_processor"]["special_tokens"]["</s>"] = {
        "id": "</s>", "ids": [2], "tokens": ["</s>"]
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(PrunecalError, match="ends every text with '</s>', so that no answer"):
        check_model("idefics3", folder, settings)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["Yes", "No"], "'No' begins with <unk>, the token of unknown words"),
        (["A", "a"], "begin with the same token 'A', .*; use the model's own tokenizer"),
    ],
)
def test_options_that_a_tokenizer_does_not_know_are_refused(options, fault):
    words = ["<unk>", "Yes", "A"]
    tokenizer = Tokenizer(models.WordLevel(dict(zip(words, range(3), strict=True)), "<unk>"))
    tokenizer.normalizer = normalizers.Replace("a", "A")
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    prompting = Prompting()
    prompting.settings = {"template": "vicuna_v1"}
    prompting.tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    with pytest.raises(PrunecalError, match=fault):
        prompting.option_tokens("Is it?", options)


@pytest.mark.parametrize(
    ("family", "other", "names", "fault"),
    [
        ("llava-onevision", "llava", TOKENIZER, "tokenizer does not know <|im_start|>, which"),
        ("idefics3", "llava", TOKENIZER, "tokenizer does not know <|begin_of_text|>, which"),
        ("idefics3", "gemma3", PROCESSOR, "Gemma3ImageProcessorPil, has no do_image_splitting"),
        ("qwen2-5-vl", "internvl", PROCESSOR, "GotOcr2ImageProcessorPil, has no patch_size"),
        ("llava-next", "llava", PROCESSOR, "has no image_grid_pinpoints; give the model's own"),
        ("internvl", "llava", PROCESSOR, "has no crop_to_patches; give the model's own image"),
    ],
)
def test_files_of_another_family_are_refused(family, other, names, fault, folders, changed):
    folder, settings = changed(family)
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    check_model(family, folder, settings)
    for path in folders(other).iterdir():
        if path.name in names:
            (folder / path.name).write_bytes(path.read_bytes())
    with pytest.raises(PrunecalError, match=re.escape(fault)):
        check_model(family, folder, settings)


@pytest.mark.parametrize(
    ("edge", "fault"),
    [(0, "encodes no image .division by zero"), (10**9, "fit into memory|encodes no image")],
)
def test_settings_with_which_no_image_is_encoded_are_refused_when_loaded(edge, fault, tmp_path):
    make, settings = FAMILIES["idefics3"]
    make(tmp_path)
    settings = {"dtype": "float32", "visual_tokens": None, **settings}
    load_model("idefics3", tmp_path, settings, CPU, "vision")
    path = tmp_path / "preprocessor_config.json"
    processor = json.loads(path.read_text())
    path.write_text(json.dumps(processor | {"max_image_size": {"longest_edge": edge}}))
    with pytest.raises(PrunecalError, match=fault):
        load_model("idefics3", tmp_path, settings, CPU, "vision")


def test_more_layers_of_visual_input_than_ten_keep_their_order(tmp_path):
    with Spool(tmp_path / "features.safetensors") as spool:
        for name in ("features", *(f"deep/{layer}" for layer in range(12))):
            spool.add(name, torch.full((2, 1), float(name.partition("/")[2] or -1)))
        spool.write({"image_id": ["a"]}, [], {})
    file = arrays.open_arrays(tmp_path / "features.safetensors", framework="pt")
    part = Images(SimpleNamespace(), file).part(0, None, compact=False)
    assert [layer[0, 0].item() for layer in part.deep] == list(range(12))
