"""Cells of a loaded model beside transformers' own model on one question at a time."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import tiny_families
from helpers.tiny_llava import TEXTS
from prunecal.core import plugins
from prunecal.engine.images import run_of_tokens
from prunecal.engine.session import Session
from prunecal.storage.spooled import Spool

SIZES = [(60, 44), (30, 70), (26, 26)]  # of images in pixels


def qwen_inputs(model, image, ids):
    pixels, grid = model.pixels([image])
    image_token = torch.tensor([ids]) == model.image_token
    kinds = image_token.int()
    positions, _ = model.model.model.get_rope_index(
        torch.tensor([ids]), image_grid_thw=grid, mm_token_type_ids=kinds
    )
    inputs = {"pixel_values": pixels, "image_grid_thw": grid, "mm_token_type_ids": kinds}
    return inputs, positions[:, 0]


def next_inputs(model, image, ids):
    pixels, sizes = model.pixels(image)
    return {"pixel_values": pixels, "image_sizes": sizes}, torch.arange(len(ids))[None]


def tile_inputs(model, image, ids):
    return {"pixel_values": model.pixels(image)}, torch.arange(len(ids))[None]


def square_inputs(model, image, ids):
    return {"pixel_values": model.pixels([image])}, torch.arange(len(ids))[None]


def gemma_inputs(model, image, ids):
    kinds = (torch.tensor([ids]) == model.image_token).long()
    return {"pixel_values": model.pixels([image]), "token_type_ids": kinds}, torch.arange(len(ids))[
        None
    ]


def masked_inputs(model, image, ids):
    pixels, mask, _ = model.pixels(image)
    return {"pixel_values": pixels, "pixel_attention_mask": mask}, torch.arange(len(ids))[None]


NEXT = {"unpad": True, "per": "image"}
QWEN = {"min_pixels": 64, "max_pixels": 12_800, "square": None}

FAMILIES = {
    "vipllava": SimpleNamespace(
        family="vip-llava",
        make=tiny_families.vip_llava,
        settings={"image": "pad", "visual_tokens": 36, "template": "vip_llava-hf"},
        inputs=square_inputs,
    ),
    "gemma3": SimpleNamespace(
        family="gemma3",
        make=tiny_families.gemma3,
        settings={"visual_tokens": 9, "template": "gemma3-hf"},
        inputs=gemma_inputs,
    ),
    "gemma3, window of 8": SimpleNamespace(
        family="gemma3",
        make=lambda folder: tiny_families.gemma3(folder, 8),
        settings={"visual_tokens": 9, "template": "gemma3-hf"},
        inputs=gemma_inputs,
    ),
    "llava_onevision": SimpleNamespace(
        family="llava-onevision",
        make=tiny_families.llava_onevision,
        settings={"unpad": True, "newline": "row", "template": "llava_onevision-hf"},
        inputs=next_inputs,
    ),
    "llava_next, Llama": SimpleNamespace(
        family="llava-next",
        make=tiny_families.llava_next,
        settings={**NEXT, "newline": "keep", "template": "llava_next-vicuna-hf"},
        inputs=next_inputs,
    ),
    "llava_next, Mistral": SimpleNamespace(
        family="llava-next",
        make=lambda folder: tiny_families.llava_next(folder, "mistral"),
        settings={**NEXT, "newline": "row", "template": "llava_next-mistral-hf"},
        inputs=next_inputs,
    ),
    "internvl": SimpleNamespace(
        family="internvl",
        make=tiny_families.internvl,
        settings={"min_tiles": 1, "max_tiles": 6, "template": "internvl-hf"},
        inputs=tile_inputs,
    ),
    "idefics3": SimpleNamespace(
        family="idefics3",
        make=tiny_families.idefics3,
        settings={"split": True, "longest_edge": None, "template": "idefics3-hf"},
        inputs=masked_inputs,
    ),
    "smolvlm": SimpleNamespace(
        family="idefics3",
        make=lambda folder: tiny_families.idefics3(folder, "smolvlm"),
        settings={"split": True, "longest_edge": None, "template": "smolvlm-hf"},
        inputs=masked_inputs,
    ),
} | {
    f"{kind} at native resolution": SimpleNamespace(
        family=family,
        make=lambda folder, kind=kind: tiny_families.qwen(folder, kind),
        settings={**QWEN, "template": "qwen_vl-lmms"},
        inputs=qwen_inputs,
    )
    for kind, family in (
        ("qwen2_vl", "qwen2-5-vl"),
        ("qwen2_5_vl", "qwen2-5-vl"),
        ("qwen3_vl", "qwen3-vl"),
    )
}


@contextlib.contextmanager
def in_double():
    """Compute in float64 what transformers and prunecal do in float32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "float32", torch.float64)
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            patch.undo()
            torch.set_default_dtype(torch.float32)


def asked_about(model, images, features):
    """Return a model's encoded images, questions about them, and a session that answers these."""
    with torch.inference_mode():
        encoded = model.encode(images)
    with Spool(features) as spool:
        for one in encoded:
            spool.add("features", one.features)
            spool.add("saliency", one.saliency)
            for layer, deep in enumerate(one.deep):
                spool.add(f"deep/{layer}", deep)
        layout = torch.tensor([one.layout for one in encoded], dtype=torch.int32)
        facts = {"image_id": [f"image{at}" for at in range(len(images))]}
        spool.write(facts, [], {"layout": layout} if layout.numel() else {})
    rows = [
        (f"q{image}{at}", f"image{image}", TEXTS[at], ["Yes", "No"])
        for image, texts in enumerate(((0, 1, 2), (0, 3), (1,))[: len(images)])
        for at in texts
    ]
    asked = pd.DataFrame(rows, columns=["question_id", "image_id", "text", "options"])
    return encoded, asked, Session(model, asked, features, batch_tokens=2048)


def run(case, name, budget, order=None, **parameters):
    strategy = plugins.load("strategies", name)
    coverage = None if order is None else np.zeros(len(case.images), np.float32)
    return case.session.run(strategy, strategy.Params(**parameters), budget, order, coverage)


def whole_prompt(case, row):
    """Return the ids of the unpruned prompt, and which visual token each is; -1 for others.

    Newline embeddings of LLaVA-NeXT have the image's id, as in transformers.
    """
    model, image = case.model, int(row["image_id"][-1])
    ids = model._ids(row["text"])
    at = ids.index(model.image_token)
    layout, count = case.encoded[image].layout, len(case.encoded[image].features)
    block = model.block(layout, count) if hasattr(model, "block") else run_of_tokens((), count)
    assert sum(token is None for token in block.glue) == count
    visual = np.cumsum([token is None for token in block.glue]) - 1
    span = [model.image_token if token in (None, -1) else token for token in block.glue]
    mine = [place if token is None else -1 for token, place in zip(block.glue, visual, strict=True)]
    return ids[:at] + span + ids[at + 1 :], [-1] * at + mine + [-1] * (len(ids) - at - 1)


def plain(case, row, reference=None):
    """Return a question's option logits by the whole model, or a reference, from pixels."""
    ids, _ = whole_prompt(case, row)
    image = case.images[int(row["image_id"][-1])]
    inputs, _ = case.entry.inputs(case.model, image, ids)
    model = reference or case.model.model
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids]), logits_to_keep=1, **inputs).logits[0, -1]
    return logits[case.model.option_tokens(row["text"], row["options"])].numpy()
