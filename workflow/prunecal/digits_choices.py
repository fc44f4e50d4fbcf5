"""Multiple-choice questions about canvases, in the form of ScienceQA (arXiv 2209.09513).

Two to five lettered choices; each kind of question is a subject; some come with a hint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from prunecal.digits import NAMES, Canvas
from prunecal.prompts import LETTERS, scienceqa_text

HINTED = 2 / 3  # share of questions with a hint
COUNTS = {3: "Three", 4: "Four", 5: "Five", 6: "Six", 7: "Seven"}


@dataclass(frozen=True)
class Question:
    """A question, its lettered options and the index of the right one."""

    subject: str
    text: str
    options: tuple[str, ...]
    label: int


def ask(subject: str, canvas: Canvas, rng: np.random.Generator) -> Question:
    """Ask one question about a canvas; the right answer is any letter with equal chance."""
    question, right, wrong = SUBJECTS[subject](canvas, rng)
    count = min(int(rng.integers(2, len(LETTERS) + 1)), 1 + len(wrong))
    choices = [right, *rng.permutation(wrong)[: count - 1].tolist()]
    order = rng.permutation(count)
    hint = f"{COUNTS[len(canvas.digits)]} handwritten digits are in the image."
    text = scienceqa_text(
        question,
        [NAMES[choices[place]] for place in order],
        hint if rng.random() < HINTED else "",
    )
    return Question(subject, text, tuple(LETTERS[:count]), int(order.argmin()))


def _presence(canvas: Canvas, rng: np.random.Generator) -> tuple[str, int, list[int]]:
    present, absent = _split(canvas)
    return "Which digit is in the image?", int(rng.choice(present)), absent


def _absence(canvas: Canvas, rng: np.random.Generator) -> tuple[str, int, list[int]]:
    present, absent = _split(canvas)
    return "Which digit is missing from the image?", int(rng.choice(absent)), present


def _order(canvas: Canvas, rng: np.random.Generator) -> tuple[str, int, list[int]]:
    del rng
    present, _ = _split(canvas)
    largest = max(present)
    others = [digit for digit in range(len(NAMES)) if digit != largest]
    return "Which is the largest digit in the image?", largest, others


def _split(canvas: Canvas) -> tuple[list[int], list[int]]:
    """Return the digits that are on the canvas and those that are not."""
    present = sorted(canvas.present)
    return present, [digit for digit in range(len(NAMES)) if digit not in canvas.present]


SUBJECTS: dict[str, Callable[[Canvas, np.random.Generator], tuple[str, int, list[int]]]] = {
    "presence": _presence,
    "absence": _absence,
    "order": _order,
}
