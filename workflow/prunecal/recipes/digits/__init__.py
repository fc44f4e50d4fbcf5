"""A small LLaVA that answers questions about handwritten digits, trained from scratch in minutes.

Training has four phases: the tower learns to name the content of each patch; the decoder learns to
answer polls, then all questions, about noisy words in place of visual tokens; projector and decoder
learn to answer questions about images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from prunecal.core.parameters import Parameters

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

LABEL = "Digits LLaVA"
TEMPLATE = "vicuna_v1"
TEMPLATES = (TEMPLATE,)


class Params(Parameters):
    """Settings of the training."""

    seed: int = Field(
        0, ge=0, lt=2**63, description="seed of canvases, first weights, batches and questions"
    )
    images: int = Field(4096, ge=2, le=10**6, description="training canvases")
    tower_steps: int = Field(
        200, ge=1, le=10**6, description="steps of 32 images that train the tower"
    )
    poll_steps: int = Field(
        60, ge=1, le=10**6, description="steps of 32 images as words, polls alone"
    )
    symbol_steps: int = Field(
        170, ge=1, le=10**6, description="steps of 32 images as words, all questions"
    )
    image_steps: int = Field(200, ge=1, le=10**6, description="steps of 16 images, all questions")


FITTED = 128  # canvases on which the symbols' noise is estimated
WHITENED = 512  # canvases that the initial patch filters whiten


def train(params: Params, folder: Path) -> pd.DataFrame:
    """Train the model and save weights, tokenizer, processor and learning curve.

    The weights depend only on the settings and on the machine's arithmetic, not on the number of
    cores or on torch's thread settings.

    Args:
        params: settings.
        folder: where to save, in the Hub's layout, as safetensors.

    Returns:
        The learning curve: phase, step, metric, value.
    """
    import numpy as np
    import pandas as pd
    import torch

    from prunecal.core.cli import progress
    from prunecal.digits.canvas import make_canvas
    from prunecal.digits.polls import truth
    from prunecal.recipes.digits import model as start
    from prunecal.recipes.digits.decoder import train_on_images, train_on_symbols
    from prunecal.recipes.digits.questions import Exam, Mix
    from prunecal.recipes.digits.tower import encode, train_tower
    from prunecal.recipes.digits.two_threads import Phase, two_threads

    processor = start.build_processor()
    tokenizer = processor.tokenizer
    words = start.word_ids(tokenizer)
    indices = progress(range(params.images), total=params.images, what="canvases", unit="canvas")
    canvases = [make_canvas("train", params.seed, index) for index in indices]
    holds = truth(canvases)
    pixels = torch.from_numpy(np.stack([canvas.pixels for canvas in canvases]))
    patches = torch.from_numpy(np.stack([canvas.patches for canvas in canvases]))
    polls, symbols, images = (
        Exam(tokenizer, canvases, holds, mix) for mix in (Mix(2, 0), Mix(1, 3), Mix(2, 3))
    )

    with two_threads() as workers, torch.random.fork_rng(devices=[]):
        torch.manual_seed(params.seed)
        model = start.build_model(tokenizer, start.normalise(pixels[:WHITENED]), patches[:WHITENED])
        phase = Phase("tower", params.tower_steps, batch=32, rate=2e-3, matrix_rate=2e-2)
        curve = train_tower(phase, model, words, pixels, patches, (params.seed, 0), workers)
        features = encode(model, pixels, workers)
        sample = features[:FITTED], patches[:FITTED]
        phase = Phase("polls", params.poll_steps, batch=32, rate=3e-3, matrix_rate=2e-2)
        curve += train_on_symbols(phase, model, words, polls, *sample, (params.seed, 1), workers)
        phase = Phase("symbols", params.symbol_steps, batch=32, rate=3e-3, matrix_rate=2e-2)
        curve += train_on_symbols(phase, model, words, symbols, *sample, (params.seed, 2), workers)
        phase = Phase("images", params.image_steps, batch=16, rate=2e-3, matrix_rate=1e-2)
        curve += train_on_images(phase, model, images, features, (params.seed, 3), workers)

    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    table = pd.DataFrame(curve)
    table.to_csv(folder / "learning_curve.csv", index=False)
    return table
