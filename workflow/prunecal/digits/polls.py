"""Polls about canvases in the form of POPE (arXiv 2305.10355): is there a ... in the image?

Ten digits would give too few polls per image, so there are three kinds of categories: one digit ("a
seven"), either of two ("a seven or a nine"), both of two ("both a seven and a nine").
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from prunecal.digits.canvas import NAMES, Canvas
from prunecal.study.prompts import pope_text

OPTIONS = ("Yes", "No")
KINDS = ("one", "either", "both")
SUBSETS = ("random", "popular", "adversarial")


@dataclass(frozen=True)
class Category:
    """The object of a poll: one digit, either of two, or both."""

    kind: Literal["one", "either", "both"]
    digits: tuple[int, ...]

    def holds(self, present: Collection[int]) -> bool:
        """Return whether an image with these digits contains the category."""
        contained = [digit in present for digit in self.digits]
        return any(contained) if self.kind == "either" else all(contained)

    @property
    def text(self) -> str:
        """The text of the question."""
        nouns = [f"{'an' if digit == 8 else 'a'} {NAMES[digit]}" for digit in self.digits]
        form = {"one": "{}", "either": "{} or {}", "both": "both {} and {}"}[self.kind]
        return pope_text(f"Is there {form.format(*nouns)} in the image?")


CATEGORIES = (
    *(Category("one", (digit,)) for digit in range(len(NAMES))),
    *(Category("either", pair) for pair in combinations(range(len(NAMES)), 2)),
    *(Category("both", pair) for pair in combinations(range(len(NAMES)), 2)),
)
KIND = np.array([category.kind for category in CATEGORIES])


def truth(canvases: Sequence[Canvas]) -> np.ndarray:
    """Return which categories each canvas contains, bool [canvases, categories]."""
    digits = [canvas.present for canvas in canvases]
    return np.array([[category.holds(present) for category in CATEGORIES] for present in digits])


@dataclass(frozen=True)
class Census:
    """Counts of categories on a set of canvases, overall and together with each digit.

    Attributes:
        popularity: canvases that contain the category, int [categories].
        together: canvases that contain the category and the digit, int [categories, digits].
    """

    popularity: np.ndarray
    together: np.ndarray

    @classmethod
    def of(cls, holds: np.ndarray) -> Census:
        """Count over canvases whose categories are `holds`, as returned by `truth`."""
        counted = holds.astype(int)
        return cls(counted.sum(axis=0), counted.T @ counted[:, KIND == "one"])


def choose(
    holds: np.ndarray, census: Census, rng: np.random.Generator
) -> tuple[list[int], dict[str, list[int]]]:
    """Choose a canvas's polls: of each kind one with the answer Yes, and one with No per subset.

    As in POPE, the subsets share the yes-questions and differ in the no-questions, which ask for an
    absent category: the most frequent one (popular), the one that most often occurs with the digits
    present (adversarial), or any (random). No category occurs twice, so a canvas has twelve
    distinct polls.

    Args:
        holds: which categories the canvas contains, bool [categories].
        census: counts over the whole data set.
        rng: the canvas's own stream.

    Returns:
        The indices of the yes-categories, and those of the no-categories per subset.
    """
    company = census.together[:, holds[KIND == "one"]].sum(axis=1)
    scores = {
        "popular": census.popularity,
        "adversarial": company,
        "random": rng.random(len(holds)),
    }
    yes: list[int] = []
    no: dict[str, list[int]] = {subset: [] for subset in SUBSETS}
    for kind in KINDS:
        yes.append(int(rng.choice(np.flatnonzero((kind == KIND) & holds))))
        absent = (kind == KIND) & ~holds
        for subset, score in scores.items():
            no[subset].append(int(np.where(absent, score, -1).argmax()))
            absent[no[subset][-1]] = False
    return yes, no


def sample(holds: np.ndarray, per_kind: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Draw polls for training: of each kind, `per_kind` with the answer Yes and as many with No.

    Returns:
        Pairs of text and answer.
    """
    return [
        (CATEGORIES[index].text, answer)
        for kind in KINDS
        for answer, present in zip(OPTIONS, (True, False), strict=True)
        for index in rng.choice(np.flatnonzero((kind == KIND) & (holds == present)), per_kind)
    ]
