"""Token ids that models with Llama's vocabulary of 32,000 were trained on.

How transformers builds a tokenizer from the same files has changed before, and a prompt with other
ids around the image still gives answers, but worse ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunecal.core.errors import PrunecalError
from prunecal.study.prompts import IMAGE, conversation

if TYPE_CHECKING:
    from pathlib import Path

BEGIN, NEWLINE, SPACE = 1, 13, 29871
PIECES = {"<s>": BEGIN, "<0x0A>": NEWLINE, "▁": SPACE}  # by which the vocabulary is recognised
OPTIONS = {"Yes": 3869, "No": 1939, "A": 319, "B": 350, "C": 315, "D": 360, "E": 382}


def refuse_other_ids(folder: Path, tokenizer: Any, template: str) -> None:
    """Refuse a tokenizer that gives a prompt other ids than LLaVA's own code does.

    They are those of `tokenizer_image_token` (github.com/haotian-liu/LLaVA) with the tokenizer of
    transformers 4.37: the beginning once, a blank before and after the image, and one token for
    each option, with the blank before it. Tokenizers with another vocabulary are not looked at.

    Args:
        folder: the model's, for the message.
        tokenizer: of transformers.
        template: of the conversation.

    Raises:
        PrunecalError: names the first ids that differ.
    """
    if any(tokenizer.convert_tokens_to_ids(piece) != number for piece, number in PIECES.items()):
        return
    prompt = conversation(template, "Is there a cat in the image?")
    ids = tokenizer(prompt)["input_ids"]
    at = ids.index(tokenizer.convert_tokens_to_ids(IMAGE))
    found = [ids[0], ids.count(BEGIN), ids[at - 1], *ids[at + 1 : at + 3]]
    expected = [BEGIN, 1, SPACE, SPACE, NEWLINE]
    if found != expected:
        raise PrunecalError(
            f"{folder}: its tokenizer begins a prompt with {ids[:2]} and puts {ids[at - 1]} before "
            f"and {ids[at + 1 : at + 3]} after the image, where LLaVA was trained with "
            f"[{BEGIN}, …], {SPACE} and [{SPACE}, {NEWLINE}]; restore the model's own "
            "tokenizer.json, or use another version of transformers"
        )
    for option, number in OPTIONS.items():
        first = tokenizer(f"{prompt} {option}")["input_ids"][len(ids) :]
        if first != [number]:
            raise PrunecalError(
                f"{folder}: its tokenizer makes {first} of the option {option!r}, which is "
                f"[{number}] in Llama's vocabulary; restore the model's own tokenizer.json, or use "
                "another version of transformers"
            )
