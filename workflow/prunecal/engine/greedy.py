"""Short answers: each question's most likely token after the other, until the answer ends.

The prompt is computed once for all questions of a row, as for options; then each question adds a
token at a time to the row's keys and values, which it attends to up to its own answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prunecal.core.errors import PrunecalError
from prunecal.engine.rows import Before, Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from prunecal.engine.batch import Batch
    from prunecal.engine.decoder import Past
    from prunecal.engine.interfaces import VisionLanguageModel

NONE = -1  # in place of a token after the end of an answer


@dataclass
class ShortAnswers:
    """What a model answered, one entry per row of the data set.

    Attributes:
        texts: the answers.
        confidence: probability of the whole answer, its end included: the product of its tokens'
            probabilities among the whole vocabulary, float64 [rows].
        tokens: number of tokens of each, its end included, int32 [rows].
        finished: whether it ended, rather than being cut off, bool [rows].
    """

    texts: list[str]
    confidence: np.ndarray
    tokens: np.ndarray
    finished: np.ndarray


class GreedyReader:
    """Reads short answers from final states.

    Args:
        model: tells which tokens end an answer, and what text tokens are.
        most: tokens of an answer at most, its end included.

    Raises:
        PrunecalError: the model does not say which token ends an answer.
    """

    def __init__(self, model: VisionLanguageModel, most: int) -> None:
        self.model, self.most = model, most
        prompting: Any = model
        self.ends: list[int] = prompting.end_tokens()
        if not self.ends:
            raise PrunecalError(
                "the model does not say which token ends an answer; give eos_token_id in its "
                "generation_config.json"
            )

    def read(self, states: Tensor, prompt: Batch, cache: Past) -> tuple[Tensor, ...]:
        """Return each question's tokens int64 [Q, most], log-probability and whether it ended.

        Args:
            states: final states [Q, H] of the questions' last tokens.
            prompt: the rows that they are of.
            cache: keys and values of the system text and the rows, for each layer.
        """
        decoder, rows = self.model.decoder, prompt.rows
        embed = getattr(self.model, "embed_glue", decoder.embed)
        assert rows.places is not None  # noqa: S101  all assembled rows have them
        place = rows.places.gather(1, rows.answers)
        positions = rows.positions
        position = positions.gather(-1, rows.answers.expand(*positions.shape[:-1], -1))
        columns = torch.arange(rows.answers.shape[1], device=states.device).expand_as(rows.answers)
        is_question = prompt.per_row(torch.ones_like(prompt.question_row)) > 0
        blocks = torch.where(is_question, columns + 1, -1)
        before = Before(rows.blocks, rows.places)
        ends = torch.tensor(self.ends, device=states.device)
        answers = states.new_full((len(states), self.most), NONE, dtype=torch.int64)
        log_probability = states.new_zeros(len(states), dtype=torch.float64)
        pending = torch.ones_like(prompt.question_row, dtype=torch.bool)
        for step in range(self.most):
            normaliser, token, logit = decoder.over_vocabulary(states)
            log_probability += torch.where(pending, (logit - normaliser).double(), 0.0)
            answers[:, step] = torch.where(pending, token, NONE)
            pending &= ~torch.isin(token, ends)
            if step == self.most - 1 or not pending.any():
                break
            added = Rows(
                states=embed(prompt.per_row(token)),
                positions=position + step + 1,
                blocks=blocks,
                answers=columns,
                places=place + step + 1,
                before=before,
            )
            longer: Past = []
            states = prompt.per_question(decoder.run(added, cache, keep=longer))
            cache, before = longer, before.then(added)
        return answers, log_probability, ~pending

    def facts(self) -> dict[str, Any]:
        """Return what a cell's metadata say of how answers were read."""
        return {"end_tokens": self.ends}

    @staticmethod
    def numbers(columns: Sequence[np.ndarray]) -> np.ndarray:
        """Return the numbers [Q, 1] of the columns from `read` that have to be finite."""
        return columns[1][:, None]

    def collect(self, columns: Sequence[np.ndarray], repeat: np.ndarray) -> dict[str, Any]:
        """Return what `Answers` holds of the columns from `read`.

        Args:
            columns: of all distinct questions.
            repeat: the distinct question of each row of the data set.
        """
        answers, log_probability, finished = columns
        model: Any = self.model
        ended = np.isin(answers, [*self.ends, NONE])
        texts = [model.text(row[~end].tolist()) for row, end in zip(answers, ended, strict=True)]
        short = ShortAnswers(
            texts=[texts[at] for at in repeat],
            confidence=np.exp(log_probability)[repeat],
            tokens=(answers != NONE).sum(axis=1).astype(np.int32)[repeat],
            finished=finished[repeat],
        )
        return {"short": short}
