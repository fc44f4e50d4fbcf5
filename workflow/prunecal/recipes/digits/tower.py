"""First phase: tower and projector learn to name the content of each patch.

The targets are the decoder's own word embeddings, so that visual tokens are noisy words to the
decoder. CLS learns which digits are present, so that its attention is meaningful.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from prunecal.digits.canvas import BACKGROUND, NAMES
from prunecal.recipes.digits.model import WIDTH, normalise
from prunecal.recipes.digits.two_threads import Metrics, Phase, train

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration

BACKGROUND_WEIGHT = 0.2  # nineteen patches in twenty are background
PRESENCE_WEIGHT = 5.0
ENCODED = 64  # images per forward pass


def train_tower(
    phase: Phase,
    model: LlavaForConditionalGeneration,
    words: list[int],
    pixels: Tensor,
    patches: Tensor,
    seed: tuple[int, int],
    workers: Executor,
) -> list[dict]:
    """Train tower, projector and word embeddings.

    Args:
        phase: the phase's length and learning rates.
        model: the model, changed in place.
        words: token ids of the digits and, last, of the background.
        pixels: training canvases, uint8 [images, SIDE, SIDE].
        patches: the classes of their patches, int64 [images, GRID * GRID].
        seed: seed of the recipe and index of the phase.
        workers: two threads.

    Returns:
        Points of the learning curve.
    """
    parts = model.model
    embeddings = model.get_input_embeddings().weight
    weight = torch.ones(len(words))
    weight[BACKGROUND] = BACKGROUND_WEIGHT
    present = (patches[:, :, None] == torch.arange(len(NAMES))).any(dim=1).float()
    # CLS is read out after the penultimate layer, which gives the saliency, and after the last
    heads = nn.ModuleList(nn.Linear(WIDTH, len(NAMES)) for _ in range(2))

    def loss(indices: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Metrics]:
        del rng
        output = parts.vision_tower(normalise(pixels[indices]), output_hidden_states=True)
        penultimate = output.hidden_states[-2]
        logits = parts.multi_modal_projector(penultimate[:, 1:]) @ embeddings[words].T
        logits, labels = logits.flatten(0, 1), patches[indices].flatten()
        named = nn.functional.cross_entropy(logits, labels, weight=weight)
        told = sum(
            nn.functional.binary_cross_entropy_with_logits(head(state), present[indices])
            for head, state in zip(heads, (penultimate[:, 0], output.pooler_output), strict=True)
        )
        right = (logits.argmax(dim=1) == labels)[labels < BACKGROUND]
        metrics = {
            "patch loss": named.item(),
            "presence loss": told.item() / 2,
            "digit patches named": right.float().mean().item(),
        }
        return named + PRESENCE_WEIGHT * told, metrics

    trained: Mapping[str, Tensor] = {
        **dict(parts.vision_tower.named_parameters("tower")),
        **dict(parts.multi_modal_projector.named_parameters("projector")),
        **dict(heads.named_parameters("heads")),
        "words": embeddings,
    }
    return train(phase, trained, loss, len(pixels), seed, workers)


@torch.no_grad()
def encode(model: LlavaForConditionalGeneration, pixels: Tensor, workers: Executor) -> Tensor:
    """Return the tower's features, [images, GRID * GRID, WIDTH]: penultimate layer, without CLS."""

    @torch.no_grad()  # the setting is per thread
    def features(batch: Tensor) -> Tensor:
        output = model.model.vision_tower(normalise(batch), output_hidden_states=True)
        return output.hidden_states[-2][:, 1:]

    return torch.cat(list(workers.map(features, pixels.split(ENCODED))))
