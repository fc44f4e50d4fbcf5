"""Multiple-choice questions about canvases, in the form of ScienceQA (arXiv 2209.09513).

Questions have two to five lettered choices, and some have a hint; each kind is a subject.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunecal.digits.canvas import NAMES, Canvas
from prunecal.study.prompts import LETTERS, scienceqa_text

HINTED = 2 / 3  # share of questions with a hint
COUNTS = {4: "Four", 5: "Five", 6: "Six", 7: "Seven", 8: "Eight", 9: "Nine"}
QUESTIONS = {
    "presence": "Which digit is in the image?",
    "absence": "Which digit is missing from the image?",
    "order": "Which is the largest digit in the image?",
}
HINT = "handwritten digits are in the image."


@dataclass(frozen=True)
class Question:
    """A question, its lettered options and the index of the correct one."""

    subject: str
    text: str
    options: tuple[str, ...]
    label: int


def ask(subject: str, canvas: Canvas, rng: np.random.Generator) -> Question:
    """Ask one question about a canvas; every letter is equally likely to be correct."""
    present = sorted(canvas.present)
    absent = [digit for digit in range(len(NAMES)) if digit not in canvas.present]
    if subject == "presence":
        right, wrong = rng.choice(present), absent
    elif subject == "absence":
        right, wrong = rng.choice(absent), present
    else:
        right, wrong = present[-1], present[:-1] + absent
    count = min(int(rng.integers(2, len(LETTERS) + 1)), 1 + len(wrong))
    choices = [right, *rng.permutation(wrong)[: count - 1]]
    order = rng.permutation(count)
    text = scienceqa_text(
        QUESTIONS[subject],
        [NAMES[choices[place]] for place in order],
        hint=f"{COUNTS[len(canvas.digits)]} {HINT}" if rng.random() < HINTED else "",
    )
    return Question(subject, text, tuple(LETTERS[:count]), int(order.argmin()))
