"""The phases after the tower's: the decoder learns to answer, first about words, then about images.

In the symbolic phases the visual tokens are noisy word embeddings, which teaches the decoder to
look things up before it must read a real projector; this stands in for language pre-training.
Polls come first: multiple choice is learnt much faster by a decoder that can look things up.
Then projector and decoder learn on the features of the frozen tower.

Besides the answer, each choice of a multiple-choice question is marked: its own token has to say
Yes if it is the right one and No if not. Without marks the decoder may stay at chance for long,
since the answer's letter tells nothing until every step towards it is there.

All questions about an image are packed into one sequence: each sees the image and itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from prunecal.digits import BACKGROUND, Canvas
from prunecal.digits_choices import QUESTIONS, ask
from prunecal.digits_polls import OPTIONS, sample
from prunecal.prompts import IMAGE, conversation
from prunecal.recipes._digits_model import TEMPLATE, WIDTH
from prunecal.recipes._halves import Metrics, Phase, train

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

SYMBOLS = 24  # visual tokens of the symbolic phases


class Mix(NamedTuple):
    """How many questions an image gets: polls per kind and answer, choices per subject."""

    polls: int
    choices: int


class Asked(NamedTuple):
    """A question as the user's text, its answer, and which choices are right (none for a poll)."""

    text: str
    answer: str
    choices: tuple[bool, ...]


@dataclass(frozen=True)
class Packed:
    """The questions about a batch of images, each image's in one row.

    Attributes:
        ids: tokens after the visual tokens, int64 [B, T].
        block: the question to which a token belongs, from 1; 0 for padding, int64 [B, T].
        offset: a token's place in its question, int64 [B, T].
        asked: place of each question's last token, int64 [B, questions].
        answers: first token of each answer, int64 [B, questions].
        is_poll: whether a question is a poll, bool [questions].
        marked: row and place of each choice's own token, int64 [2, choices].
        marks: Yes or No for each of these, as tokens, int64 [choices].
    """

    ids: Tensor
    block: Tensor
    offset: Tensor
    asked: Tensor
    answers: Tensor
    is_poll: Tensor
    marked: Tensor
    marks: Tensor


class Exam:
    """Questions about training canvases, as tokens.

    Args:
        tokenizer: the model's.
        canvases: the training canvases.
        holds: which categories of polls they have, as `truth` gives it.
        mix: what is asked about each.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        canvases: Sequence[Canvas],
        holds: np.ndarray,
        mix: Mix,
    ) -> None:
        self.tokenizer, self.canvases, self.holds, self.mix = tokenizer, canvases, holds, mix
        (prompt,) = self._tokenize([""])
        self.before = prompt[: prompt.index(tokenizer.convert_tokens_to_ids(IMAGE))]

    def questions(self, index: int, rng: np.random.Generator) -> list[Asked]:
        """Draw questions about one canvas, polls first."""
        polls = sample(self.holds[index], self.mix.polls, rng)
        choices = [
            ask(subject, self.canvases[index], rng)
            for subject in QUESTIONS
            for _ in range(self.mix.choices)
        ]
        return [Asked(text, answer, ()) for text, answer in polls] + [
            Asked(
                question.text,
                question.options[question.label],
                tuple(place == question.label for place in range(len(question.options))),
            )
            for question in choices
        ]

    def pack(self, indices: np.ndarray, rng: np.random.Generator) -> Packed:
        """Draw and pack the questions about some canvases."""
        drawn = [self.questions(index, rng) for index in indices]
        tokens = iter(self._tokenize([asked.text for row in drawn for asked in row]))
        rows = [[next(tokens)[len(self.before) + 1 :] for _ in row] for row in drawn]
        length = max(sum(map(len, row)) for row in rows)
        ids, block, offset = np.zeros((3, len(rows), length), dtype=np.int64)
        ends = np.array([np.cumsum([len(question) for question in row]) for row in rows])
        marked, marks = [], []
        for row, questions in enumerate(rows):
            for number, (question, end) in enumerate(zip(questions, ends[row], strict=True)):
                place = slice(end - len(question), end)
                ids[row, place] = question
                block[row, place] = number + 1
                offset[row, place] = np.arange(len(question))
                # a question ends in letter, choice, letter, choice, ..., one token of tail
                choices = drawn[row][number].choices
                marked += [(row, end - 2 * back) for back in range(len(choices), 0, -1)]
                marks += [OPTIONS[0] if right else OPTIONS[1] for right in choices]
        answers = self._words([asked.answer for row in drawn for asked in row])
        return Packed(
            *map(torch.from_numpy, (ids, block, offset, ends - 1)),
            answers=answers.view(ends.shape),
            is_poll=torch.tensor([not asked.choices for asked in drawn[0]]),
            marked=torch.tensor(marked, dtype=torch.int64).view(-1, 2).T,
            marks=self._words(marks),
        )

    def _words(self, words: list[str]) -> Tensor:
        return torch.tensor(self.tokenizer.convert_tokens_to_ids(words), dtype=torch.int64)

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer([conversation(TEMPLATE, text) for text in texts])["input_ids"]


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
        phase: its length and rates.
        model: the model, changed in place.
        words: tokens of what a patch can show, background last.
        exam: asks the questions.
        features: the tower's features of some training canvases, to which the noise is fitted.
        patches: what their patches show.
        seed: seed of the recipe and number of the phase.
        workers: two threads.

    Returns:
        Points of the learning curve.
    """
    embeddings = model.get_input_embeddings().weight
    with torch.no_grad():
        projected = model.model.multi_modal_projector(features)
        meant = embeddings[words][patches]
        digit = patches < BACKGROUND
        scale, noise = zip(
            *(_fit(projected[kind], meant[kind]) for kind in (digit, ~digit)), strict=True
        )

    def loss(indices: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Metrics]:
        shown = torch.from_numpy(
            np.stack([_symbols(exam.canvases[index], rng) for index in indices])
        )
        spread = torch.from_numpy(rng.standard_normal((*shown.shape, WIDTH), dtype=np.float32))
        background = (shown == BACKGROUND).long()
        visual = (
            torch.tensor(scale)[background][..., None] * embeddings[words][shown]
            + torch.tensor(noise)[background][..., None] * spread
        )
        return _answer(model, exam, visual, exam.pack(indices, rng))

    trained = {**dict(model.model.language_model.named_parameters("decoder"))}
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
    """Return what each symbolic token shows: the canvas's digits, some repeatedly, at any place."""
    values = [digit.value for digit in canvas.digits]
    values = np.repeat(values, rng.integers(1, 4, len(values)))
    shown = np.full(SYMBOLS, BACKGROUND)
    shown[: len(values)] = values
    return rng.permutation(shown)


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
    logits = model.lm_head(states[torch.arange(B)[:, None], shared + packed.asked])
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), packed.answers.flatten())
    right = (logits.argmax(dim=-1) == packed.answers).float()
    metrics = {"loss": loss.item(), "polls right": right[:, packed.is_poll].mean().item()}
    if len(packed.marks):
        metrics["choices right"] = right[:, ~packed.is_poll].mean().item()
        row, place = packed.marked
        marks = model.lm_head(states[row, shared + place])
        marking = nn.functional.cross_entropy(marks, packed.marks)
        metrics["choices marked right"] = (
            (marks.argmax(dim=-1) == packed.marks).float().mean().item()
        )
        loss = loss + marking
    return loss, metrics
