"""Small random models of every family in the Hub's layout, with their processors."""

import contextlib
import random
import sys

import pytest
import torch

from helpers.tiny_llava import tiny_tokenizer

WIDTH, SIDE, PATCH = 64, 24, 4
TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "pad_token_id": 0,
}
CLIP = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": PATCH,
}
MROPE = {"rope_type": "default", "rope_theta": 1e4}


@contextlib.contextmanager
def drawn_shape(seed):
    """Build models of other widths, depths and heads meanwhile."""
    draw = random.Random(seed)  # noqa: S311  no secret
    heads, key_heads = draw.choice([(4, 2), (4, 4), (4, 1), (8, 2), (2, 1), (6, 3)])
    width = heads * draw.choice([8, 16, 24])
    shape = {
        "hidden_size": width,
        "intermediate_size": draw.choice([48, 96, 130]),
        "num_hidden_layers": draw.choice([4, 5, 6]),
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
    }
    tower = {"num_attention_heads": draw.choice([2, 4]), "num_hidden_layers": draw.choice([3, 4])}
    here = sys.modules[__name__]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(here, "WIDTH", width)
        patch.setattr(here, "TEXT", TEXT | shape)
        patch.setattr(here, "CLIP", CLIP | tower)
        yield draw


def tokenizer_with(*special):
    """Return the small tokenizer with further special tokens."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", *special]})
    return tokenizer


def noisy(model, seed=0):
    """Give a model weights for which attention is far from uniform."""
    noise = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        if value.ndim >= 2 or "newline" in name:
            value.data = torch.randn(value.shape, generator=noise) * 1.5 / value.shape[-1] ** 0.5
        else:
            value.data += 0.1 * torch.randn(value.shape, generator=noise)
    return model.eval().requires_grad_(requires_grad=False)


def saved(folder, model, tokenizer, processor, seed):
    model = noisy(model, seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


def qwen(folder, kind="qwen2_5_vl", seed=0):
    """Save a Qwen2-VL, Qwen2.5-VL or Qwen3-VL of tokens of 8 pixels; return the model."""
    import transformers as hf
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    special = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|im_start|>", "<|im_end|>")
    tokenizer = tokenizer_with(*special)
    ids = dict(zip(special, tokenizer.convert_tokens_to_ids(list(special)), strict=True))
    vision = {
        "num_heads": 4,
        "patch_size": PATCH,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    half = TEXT["hidden_size"] // TEXT["num_attention_heads"] // 2
    rope, extra = MROPE | {"mrope_section": [2, half // 2 - 1, half // 2 - 1]}, {}
    if kind == "qwen2_vl":
        vision |= {"depth": 3, "embed_dim": 32, "hidden_size": WIDTH, "mlp_ratio": 2}
    else:
        vision |= {"depth": 4, "hidden_size": 32, "intermediate_size": 48, "out_hidden_size": WIDTH}
    if kind == "qwen2_5_vl":
        vision |= {"window_size": 16, "fullatt_block_indexes": [1, 3]}
    if kind == "qwen3_vl":
        vision |= {"num_position_embeddings": 36, "deepstack_visual_indexes": [0, 1, 2]}
        rope = MROPE | {"mrope_section": [4, 2, 2], "mrope_interleaved": True}
        extra = {"head_dim": 16}
    stem = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}[kind]
    config = getattr(hf, f"{stem}Config")(
        text_config={**TEXT, **extra, "vocab_size": len(tokenizer), "rope_parameters": rope},
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=1,
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )
    processor = Qwen2VLImageProcessorPil(patch_size=PATCH, merge_size=2, temporal_patch_size=2)
    model = getattr(hf, f"{stem}ForConditionalGeneration")(config)
    return saved(folder, model, tokenizer, processor, seed)


def llava(folder, text="llama", seed=0):
    """Save a LLaVA-1.5 of 36 visual tokens, with "mistral" a BakLLaVA; return the model."""
    import transformers as hf

    tokenizer = tiny_tokenizer()
    kind = {"llama": hf.LlamaConfig, "mistral": hf.MistralConfig}[text]
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**CLIP, projection_dim=16),
        text_config=kind(**TEXT, vocab_size=len(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=False,
    )
    size = {"height": SIDE, "width": SIDE}
    processor = hf.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size)
    return saved(folder, hf.LlavaForConditionalGeneration(config), tokenizer, processor, seed)


def llava_next(folder, text="llama", seed=0):
    """Save a LLaVA-NeXT with tiles of 24 pixels; return the model."""
    import transformers as hf
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    tokenizer = tiny_tokenizer()
    pins = [[24, 48], [48, 24], [48, 48], [72, 24], [24, 72]]
    window = {"sliding_window": None} if text == "mistral" else {}
    kind = {"llama": hf.LlamaConfig, "mistral": hf.MistralConfig}[text]
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**CLIP, projection_dim=16),
        text_config=kind(**TEXT, **window, vocab_size=len(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pins,
        tie_word_embeddings=False,
    )
    size = {"height": SIDE, "width": SIDE}
    processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size=size, image_grid_pinpoints=pins
    )
    model = hf.LlavaNextForConditionalGeneration(config)
    return saved(folder, model, tokenizer, processor, seed)


def internvl(folder, seed=0):
    """Save an InternVL with tiles of 24 pixels and 9 tokens; return the model."""
    import transformers as hf
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    tokenizer = tokenizer_with("<img>", "</img>", "<IMG_CONTEXT>", "<|im_start|>", "<|im_end|>")
    vision = {key: CLIP[key] for key in CLIP if not key.startswith(("image", "patch"))}
    config = hf.InternVLConfig(
        vision_config=hf.InternVLVisionConfig(
            **vision, image_size=[SIDE, SIDE], patch_size=[PATCH, PATCH]
        ),
        text_config=hf.Qwen2Config(**TEXT, vocab_size=len(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=9,
        tie_word_embeddings=False,
    )
    processor = GotOcr2ImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return saved(folder, hf.InternVLForConditionalGeneration(config), tokenizer, processor, seed)


def idefics3(folder, kind="idefics3", seed=0):
    """Save an Idefics3 or a SmolVLM with tiles of 24 pixels and 9 tokens; return the model."""
    import importlib

    import transformers as hf

    stem = {"idefics3": "Idefics3", "smolvlm": "SmolVLM"}[kind]
    rows = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    around = (
        "<|begin_of_text|>",
        "<fake_token_around_image>",
        "<global-img>",
        "<end_of_utterance>",
        "<|im_start|>",
    )
    tokenizer = tokenizer_with(*around, *rows)
    config = getattr(hf, f"{stem}Config")(
        vision_config=getattr(hf, f"{stem}VisionConfig")(**CLIP),
        text_config=hf.LlamaConfig(**TEXT, vocab_size=len(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    module = f"transformers.models.{kind}.image_processing_pil_{kind}"
    processor = getattr(importlib.import_module(module), f"{stem}ImageProcessorPil")(
        size={"longest_edge": 72}, max_image_size={"longest_edge": SIDE}
    )
    model = getattr(hf, f"{stem}ForConditionalGeneration")(config)
    return saved(folder, model, tokenizer, processor, seed)


def vip_llava(folder, seed=0):
    """Save a ViP-LLaVA of three feature layers; return the model."""
    import transformers as hf

    tokenizer = tiny_tokenizer()
    config = hf.VipLlavaConfig(
        vision_config=hf.CLIPVisionConfig(**CLIP, projection_dim=16),
        text_config=hf.LlamaConfig(**TEXT, vocab_size=len(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=[-2, -1, 1],
        tie_word_embeddings=False,
    )
    size = {"height": SIDE, "width": SIDE}
    processor = hf.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size)
    return saved(folder, hf.VipLlavaForConditionalGeneration(config), tokenizer, processor, seed)


def gemma3(folder, window=1000, seed=0):
    """Save a Gemma 3 of 9 visual tokens; return the model."""
    import transformers as hf
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    special = ("<start_of_image>", "<end_of_image>", "<image_soft_token>", "<start_of_turn>")
    tokenizer = tokenizer_with(*special, "<end_of_turn>")
    ids = tokenizer.convert_tokens_to_ids(list(special))
    depth = TEXT["num_hidden_layers"]
    kinds = (["sliding_attention", "full_attention"] * depth)[:depth]
    config = hf.Gemma3Config(
        text_config={
            **TEXT,
            "vocab_size": len(tokenizer),
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": window,
            "layer_types": kinds,
        },
        vision_config={**CLIP, "vision_use_head": False},
        mm_tokens_per_image=9,
        boi_token_index=ids[0],
        eoi_token_index=ids[1],
        image_token_index=ids[2],
    )
    processor = Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return saved(folder, hf.Gemma3ForConditionalGeneration(config), tokenizer, processor, seed)


def llava_onevision(folder, seed=0):
    """Save a LLaVA-OneVision with tiles of 24 pixels; return the model."""
    import transformers as hf
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    tokenizer = tokenizer_with("<video>", "<|im_start|>", "<|im_end|>")
    pins = [[SIDE * row, SIDE * column] for row in range(1, 5) for column in range(1, 5)]
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**CLIP, vision_use_head=False),
        text_config=hf.Qwen2Config(**TEXT, vocab_size=len(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pins,
        vision_aspect_ratio="anyres_max_4",
        tie_word_embeddings=False,
    )
    processor = LlavaOnevisionImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=pins
    )
    model = hf.LlavaOnevisionForConditionalGeneration(config)
    return saved(folder, model, tokenizer, processor, seed)
