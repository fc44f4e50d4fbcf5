"""Cells of a loaded model beside transformers' own model on one question at a time."""

import numpy as np
import pandas as pd
import torch

from helpers.tiny_llava import TEXTS
from prunecal.core import plugins
from prunecal.engine.images import run_of_tokens
from prunecal.engine.session import Session
from prunecal.storage.spooled import Spool


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
