"""In whose words a question is put: LLaVA's evaluation or VLMEvalKit's.

VLMEvalKit's are those of its Qwen2-VL (`vlmeval/vlm/qwen2_vl/prompt.py` of
github.com/open-compass/VLMEvalKit, 2aa7214), which asks for letters in Chinese where a question is.
"""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from prunecal.core.parameters import Parameters
from prunecal.study.prompts import SELECT, SELECT_CHINESE, YES_NO, choice_text, pope_text

if TYPE_CHECKING:
    from collections.abc import Sequence

CHINESE = re.compile("[\u4e00-\u9fff]")


class Worded(Parameters):
    """Settings of data sets whose questions can be put in several ways."""

    wording: Literal["llava", "vlmevalkit"] = Field(
        "llava",
        description="words around a question: those of LLaVA's evaluation, which lmms-eval has, "
        "too, or of VLMEvalKit",
    )

    def yes_no(self, question: str) -> str:
        """Return what the user says for a question that is answered by Yes or No."""
        if self.wording == "llava":
            return pope_text(question)
        return f"{question} {YES_NO}"

    def choices(self, question: str, choices: Sequence[str], hint: str = "") -> str:
        """Return what the user says for a multiple-choice question with lettered choices."""
        if self.wording == "llava":
            return choice_text(question, choices, hint)
        lines = [f"Hint: {hint}"] if hint.strip() else []
        lines += [f"Question: {question}", "Options:"]
        pairs = zip(string.ascii_uppercase, choices, strict=False)
        text = "\n".join([*lines, *(f"{letter}. {choice}" for letter, choice in pairs)])
        return f"{text}\n{SELECT_CHINESE if CHINESE.search(text) else SELECT}"
