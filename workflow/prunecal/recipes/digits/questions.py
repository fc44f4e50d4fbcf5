"""Questions about training canvases, packed so that all questions about an image share a sequence.

Each question attends to the image and to itself. Besides the answer, every choice of a
multiple-choice question has a target of its own: its token has to predict Yes if the choice is
correct and No otherwise. Without these marks the decoder may stay at chance for long, since the
letter of the answer gives no gradient until all steps towards it are learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prunecal.digits.canvas import Canvas
from prunecal.digits.choices import QUESTIONS, ask
from prunecal.digits.polls import OPTIONS, sample
from prunecal.recipes.digits import TEMPLATE
from prunecal.study.prompts import IMAGE, conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class Mix(NamedTuple):
    """Number of questions per image: polls per kind and answer, choices per subject."""

    polls: int
    choices: int


class Target(NamedTuple):
    """A question's text, its answer, and whether each choice is correct (empty for a poll)."""

    text: str
    answer: str
    choices: tuple[bool, ...]


@dataclass(frozen=True)
class Packed:
    """The questions about a batch of images, one row per image.

    Attributes:
        ids: tokens after the visual tokens, int64 [B, T].
        block: the question that a token belongs to, from 1; 0 for padding, int64 [B, T].
        offset: a token's position in its question, int64 [B, T].
        ends: position of each question's last token, int64 [B, questions].
        answers: first token of each answer, int64 [B, questions].
        is_poll: whether a question is a poll, bool [questions].
        marked: row and position of each choice's own token, int64 [2, choices].
        marks: token of Yes or No for each of these, int64 [choices].
    """

    ids: Tensor
    block: Tensor
    offset: Tensor
    ends: Tensor
    answers: Tensor
    is_poll: Tensor
    marked: Tensor
    marks: Tensor


class Exam:
    """Questions about training canvases, as tokens.

    Args:
        tokenizer: the model's tokenizer.
        canvases: the training canvases.
        holds: which categories of polls they contain, as returned by `truth`.
        mix: number of questions about each.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        canvases: Sequence[Canvas],
        holds: np.ndarray,
        mix: Mix,
    ) -> None:
        self.tokenizer, self.canvases, self.holds, self.mix = tokenizer, canvases, holds, mix
        self.before: list[int] = tokenizer(_around_image("")[0])["input_ids"]

    def questions(self, index: int, rng: np.random.Generator) -> list[Target]:
        """Draw questions about one canvas, polls first."""
        polls = sample(self.holds[index], self.mix.polls, rng)
        choices = [
            ask(subject, self.canvases[index], rng)
            for subject in QUESTIONS
            for _ in range(self.mix.choices)
        ]
        return [Target(text, answer, ()) for text, answer in polls] + [
            Target(
                question.text,
                question.options[question.label],
                tuple(place == question.label for place in range(len(question.options))),
            )
            for question in choices
        ]

    def pack(self, indices: np.ndarray, rng: np.random.Generator) -> Packed:
        """Draw and pack the questions about some canvases."""
        drawn = [self.questions(index, rng) for index in indices]
        tokens = iter(self._tokenize([target.text for row in drawn for target in row]))
        rows = [[next(tokens) for _ in row] for row in drawn]
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
                # a question ends with letter, choice, letter, choice, ..., and one more token
                choices = drawn[row][number].choices
                marked += [(row, end - 2 * back) for back in range(len(choices), 0, -1)]
                marks += [OPTIONS[0] if right else OPTIONS[1] for right in choices]
        answers = self._words([target.answer for row in drawn for target in row])
        return Packed(
            *map(torch.from_numpy, (ids, block, offset, ends - 1)),
            answers=answers.view(ends.shape),
            is_poll=torch.tensor([not target.choices for target in drawn[0]]),
            marked=torch.tensor(marked, dtype=torch.int64).view(-1, 2).T,
            marks=self._words(marks),
        )

    def _words(self, words: list[str]) -> Tensor:
        return torch.tensor(self.tokenizer.convert_tokens_to_ids(words), dtype=torch.int64)

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of prompts behind the image, without the bookkeeping of offsets."""
        encode = self.tokenizer.backend_tokenizer.encode_batch_fast
        encoded = encode([_around_image(text)[1] for text in texts], add_special_tokens=False)
        return [one.ids for one in encoded]


def _around_image(text: str) -> tuple[str, str]:
    """Return what stands before and behind the image in a prompt."""
    before, _, behind = conversation(TEMPLATE, text).partition(IMAGE)
    return before, behind
