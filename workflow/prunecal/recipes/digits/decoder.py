"""Training of the decoder, first on words, then on images.

In the symbolic phases the visual tokens are noisy word embeddings, which teaches the decoder to
look up information before it has to read a real projector; this replaces language pre-training.
Polls come first: a decoder that can look up information learns multiple choice much faster.
Then projector and decoder are trained on the features of the frozen tower.
"""

from __future__ import annotations

from concurrent.futures import Executor
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from prunecal.digits.canvas import BACKGROUND, Canvas
from prunecal.recipes.digits.model import WIDTH
from prunecal.recipes.digits.questions import Exam, Packed
from prunecal.recipes.digits.two_threads import Metrics, Phase, train

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration

SYMBOLS = 24  # visual tokens of the symbolic phases, more than twice the digits of a canvas


def train_on_symbols(
    phase: Phase,
    model: LlavaForConditionalGeneration,
    words: list[int],
    exam: Exam,
    features: Tensor,
    patches: Tensor,
    seed: tuple[int, int],
    workers: Executor,
) -> list[dict]:
    """Train the decoder on noisy words in place of visual tokens.

    Args:
        phase: the phase's length and learning rates.
        model: the model, changed in place.
        words: token ids of the digits and, last, of the background.
        exam: generates the questions.
        features: the tower's features of some training canvases, on which the noise is estimated.
        patches: the classes of their patches.
        seed: seed of the recipe and index of the phase.
        workers: two threads.

    Returns:
        Points of the learning curve.
    """
    embeddings = model.get_input_embeddings().weight
    with torch.no_grad():
        projected = model.model.multi_modal_projector(features)
        meant = embeddings[words][patches]
        background = patches == BACKGROUND
        fits = [_fit(projected[kind], meant[kind]) for kind in (~background, background)]
        scale, noise = torch.tensor(fits).T

    def loss(indices: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Metrics]:
        drawn = [_symbols(exam.canvases[index], rng) for index in indices]
        labels = torch.from_numpy(np.stack(drawn))
        spread = torch.from_numpy(rng.standard_normal((*labels.shape, WIDTH), dtype=np.float32))
        kind = (labels == BACKGROUND).long()[..., None]
        visual = scale[kind] * embeddings[words][labels] + noise[kind] * spread
        return _answer(model, exam, visual, exam.pack(indices, rng))

    trained = dict(model.model.language_model.named_parameters("decoder"))
    trained["head"] = model.lm_head.weight
    return train(phase, trained, loss, len(exam.canvases), seed, workers)


def train_on_images(
    phase: Phase,
    model: LlavaForConditionalGeneration,
    exam: Exam,
    features: Tensor,
    seed: tuple[int, int],
    workers: Executor,
) -> list[dict]:
    """Train projector and decoder on the tower's features; arguments as in `train_on_symbols`."""
    projector = model.model.multi_modal_projector

    def loss(indices: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Metrics]:
        return _answer(model, exam, projector(features[indices]), exam.pack(indices, rng))

    trained = {
        **dict(projector.named_parameters("projector")),
        **dict(model.model.language_model.named_parameters("decoder")),
    }
    trained["head"] = model.lm_head.weight
    return train(phase, trained, loss, len(features), seed, workers)


def _fit(projected: Tensor, meant: Tensor) -> tuple[float, float]:
    """Fit projected = scale * meant + noise; return the scale and the noise's deviation."""
    scale = (projected * meant).sum() / meant.square().sum()
    return scale.item(), (projected - scale * meant).std().item()


def _symbols(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Return the class of each symbolic token: each digit once or twice, shuffled."""
    values = [digit.value for digit in canvas.digits]
    values = np.repeat(values, rng.integers(1, 3, len(values)))
    labels = np.full(SYMBOLS, BACKGROUND)
    labels[: len(values)] = values
    return rng.permutation(labels)


def _answer(
    model: LlavaForConditionalGeneration, exam: Exam, visual: Tensor, packed: Packed
) -> tuple[Tensor, Metrics]:
    """Return the loss of the answers to packed questions about visual tokens [B, N, WIDTH]."""
    embed = model.get_input_embeddings()
    B, N, _ = visual.shape
    prefix = embed(torch.tensor(exam.before)).expand(B, -1, -1)
    shared = prefix.shape[1] + N
    block = nn.functional.pad(packed.block, (shared, 0))
    sees = (block[:, :, None] == block[:, None]) | (torch.arange(block.shape[1]) < shared)
    mask = torch.zeros(sees.shape).masked_fill_(~sees.tril(), torch.finfo(torch.float32).min)
    positions = torch.cat([torch.arange(shared).expand(B, -1), shared + packed.offset], dim=1)
    states = model.model.language_model(
        inputs_embeds=torch.cat([prefix, visual, embed(packed.ids)], dim=1),
        attention_mask=mask[:, None],
        position_ids=positions,
        use_cache=False,
    ).last_hidden_state
    logits = model.lm_head(states[torch.arange(B)[:, None], shared + packed.ends])
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), packed.answers.flatten())
    right = (logits.argmax(dim=-1) == packed.answers).float()
    metrics = {"loss": loss.item(), "polls right": right[:, packed.is_poll].mean().item()}
    if len(packed.marks):
        metrics["choices right"] = right[:, ~packed.is_poll].mean().item()
        row, place = packed.marked
        marks = model.lm_head(states[row, shared + place])
        right = (marks.argmax(dim=-1) == packed.marks).float()
        metrics["marks right"] = right.mean().item()
        loss = loss + nn.functional.cross_entropy(marks, packed.marks)
    return loss, metrics
