"""Choices that a question's own text holds, each after its letter."""

from __future__ import annotations

import re
import string
from typing import Literal

from prunecal.core.errors import PrunecalError

BEFORE = r"(?:^|[\s,;])"
LETTERED = [  # "(A)", "A)", "A.", "A:" and their Chinese forms
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        r"[(（]([A-Z])[)）]",
        *(rf"{BEFORE}([A-Z])[{mark}]" for mark in (")）", ".．", ":：", "、")),
    )
]


def letters_in(where: str, question: str, letters: int | Literal["auto"]) -> int:
    """Return how many choices a question's text holds, each after its letter, from A on in turn.

    Raises:
        PrunecalError: they are not as many as the study says, or two ways of lettering give two
            numbers; none is fine, where images hold them.
    """
    counts = sorted({run for pattern in LETTERED if (run := _run(pattern, question)) > 1})
    if letters in counts or (letters != "auto" and not counts):
        return int(letters)
    last = [string.ascii_uppercase[count - 1] for count in counts]
    if not counts:
        raise PrunecalError(
            f"{where} has no choices from A on in its question; name their column in `options:`, "
            "or set `letters:` to their number"
        )
    if letters != "auto":
        raise PrunecalError(
            f"{where} has the choices A to {last[-1]} in its question, not {letters}; set "
            "`letters: auto`"
        )
    if len(counts) > 1:
        raise PrunecalError(
            f"{where} has choices A to {' and A to '.join(last)} in its question; letter them in "
            "one way, or set `letters:` to their number"
        )
    return counts[0]


def _run(pattern: re.Pattern[str], text: str) -> int:
    """Return how many letters from A on follow each other in a text."""
    count = 0
    for letter in pattern.findall(text):
        count += count < len(string.ascii_uppercase) and letter == string.ascii_uppercase[count]
    return count
