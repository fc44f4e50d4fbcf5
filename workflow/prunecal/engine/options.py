"""Answer options as tokens: each option's first token, and the other spellings of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from prunecal.engine.interfaces import VisionLanguageModel

LETTERS = ("A", "B", "C", "D")


@dataclass(frozen=True)
class OptionTokens:
    """The tokens by which a data set's options are answered.

    Attributes:
        first: the first token of each option, whose logit is the option's.
        spellings: all tokens that stand for each option, its first one and those of other case or
            spacing; empty where the model family names none or the tokenizer has none.
    """

    first: dict[str, int]
    spellings: dict[str, list[int]]

    @classmethod
    def of(
        cls, model: VisionLanguageModel, asked: Iterable[tuple[str, tuple[str, ...]]]
    ) -> OptionTokens:
        """Ask a model.

        Args:
            model: tells the tokens of options.
            asked: texts of questions with their options.

        Raises:
            PrunecalError: options of a question begin with the same token.
        """
        first: dict[str, int] = {}
        spellings: dict[str, list[int]] = {}
        texts: dict[tuple[str, ...], str] = {}
        for text, options in asked:
            texts.setdefault(options, text)
        for options, text in texts.items():
            first |= zip(options, model.option_tokens(text, options), strict=True)
            if hasattr(model, "option_spellings"):
                spellings |= zip(options, model.option_spellings(text, options), strict=True)
        spellings = _unshared(spellings, first)
        several = any(len(tokens) > 1 for tokens in spellings.values())
        return cls(first, spellings if several else {})

    @property
    def letters(self) -> list[int] | None:
        """The tokens of A to D, where all options are letters; else None."""
        if any(len(option) != 1 for option in self.first) or not set(LETTERS) <= set(self.first):
            return None
        return [self.first[letter] for letter in LETTERS]


class OptionReader:
    """Reads the logits of answer options from final states.

    Args:
        model: tells the tokens of options.
        asked: texts of the distinct questions with their options.

    Attributes:
        tokens: the tokens that stand for the answer options.

    Raises:
        PrunecalError: options of a question begin with the same token.
    """

    def __init__(
        self, model: VisionLanguageModel, asked: Sequence[tuple[str, tuple[str, ...]]]
    ) -> None:
        self.decoder, self.asked = model.decoder, asked
        self.tokens = OptionTokens.of(model, asked)
        self.columns = Columns(self.tokens.first.values())
        self.spellings = Columns(
            token for tokens in self.tokens.spellings.values() for token in tokens
        )

    def read(self, states: Tensor) -> tuple[Tensor, ...]:
        """Return logits of options and of spellings, log-normaliser and top token of states."""
        read = [
            self.decoder.logits(states, torch.tensor(columns.tokens, device=states.device).long())
            for columns in (self.columns, self.spellings)
        ]
        return (*read, *self.decoder.over_vocabulary(states)[:2])

    def facts(self) -> dict[str, Any]:
        """Return what a cell's metadata say of how answers were read."""
        return {"option_tokens": self.tokens.first, "option_spellings": self.tokens.spellings}

    @staticmethod
    def numbers(columns: Sequence[np.ndarray]) -> np.ndarray:
        """Return the numbers [Q, n] of the columns from `read` that have to be finite."""
        return np.column_stack((columns[0], columns[2]))

    def collect(self, columns: Sequence[np.ndarray], repeat: np.ndarray) -> dict[str, Any]:
        """Return what `Answers` holds of the columns from `read`.

        Args:
            columns: of all distinct questions.
            repeat: the distinct question of each row of the data set.
        """
        table, of_spelling, log_normaliser, top_token = columns
        first, spellings, letters = self.tokens.first, self.tokens.spellings, self.tokens.letters
        mine = [
            row[self.columns.of(first[option] for option in options)]
            for row, (_, options) in zip(table, self.asked, strict=True)
        ]
        mine_spelled = [
            summed(row, [self.spellings.of(spellings[option]) for option in options])
            for row, (_, options) in zip(of_spelling, self.asked, strict=True)
            if spellings
        ]
        return {
            "logits": [mine[at] for at in repeat],
            "log_normaliser": log_normaliser[repeat],
            "top_token": top_token[repeat].astype(np.int32),
            "spelling_logits": [mine_spelled[at] for at in repeat] if spellings else None,
            "letter_logits": table[:, self.columns.of(letters)][repeat] if letters else None,
        }


class Columns:
    """The columns of a table of logits in which some tokens stand.

    Args:
        tokens: token ids, repeated or not.

    Attributes:
        tokens: each of them once, sorted: the columns.
    """

    def __init__(self, tokens: Iterable[int]) -> None:
        self.tokens = sorted(set(tokens))
        self._place = {token: at for at, token in enumerate(self.tokens)}

    def of(self, tokens: Iterable[int]) -> list[int]:
        """Return the columns of some tokens."""
        return [self._place[token] for token in tokens]


def summed(logits: np.ndarray, columns: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the log-sum-exp of groups of one row's logits, float32 [groups]."""
    return np.array([np.logaddexp.reduce(logits[group]) for group in columns], np.float32)


def _unshared(spellings: dict[str, list[int]], first: dict[str, int]) -> dict[str, list[int]]:
    """Add each option's first token to its spellings; a token of two options is neither's."""
    owners = Counter(token for tokens in spellings.values() for token in set(tokens))
    taken = set(first.values())
    return {
        option: sorted(
            {first[option]}
            | {token for token in tokens if owners[token] == 1 and token not in taken}
        )
        for option, tokens in spellings.items()
    }
