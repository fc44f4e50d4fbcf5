"""Run the cells of a data set, one after another, on a loaded model."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prunecal.core.errors import RERUN, PrunecalError
from prunecal.engine import micro_batches, token_counts
from prunecal.engine.answers import Answers, patches_per_row
from prunecal.engine.greedy import GreedyReader
from prunecal.engine.images import Images
from prunecal.engine.merged import Merged
from prunecal.engine.options import OptionReader
from prunecal.engine.pairs import rows_of
from prunecal.engine.planner import plan
from prunecal.engine.questions import Questions
from prunecal.engine.runner import Runner
from prunecal.engine.unpruned import Memory
from prunecal.storage.arrays import open_arrays
from prunecal.study import schedules
from prunecal.study.budgets import ALL, Budget, kept_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import ModuleType

    import pandas as pd

    from prunecal.engine.answers import HeldPart
    from prunecal.engine.interfaces import VisionLanguageModel
    from prunecal.engine.micro_batches import Answer, Reader
    from prunecal.engine.token_counts import Schedule

BLIND_ROW = 16  # prompts without an image that share what precedes their texts


class Session:
    """A loaded model with a data set's distinct questions, ready to run cells.

    Args:
        model: a loaded model of one of the families.
        questions: columns question_id, image_id, text and options.
        features: the data set's features.safetensors.
        batch_tokens: tokens per micro-batch.
        max_new_tokens: tokens of a short answer at most, its end included; None where answers are
            options.

    Attributes:
        questions: the distinct ones.
        reader: reads answers from final states.
        runner: runs micro-batches.

    Raises:
        PrunecalError: the features do not fit the model, an image has no features, a prompt is
            longer than the model's positions, or the options of a question begin with the same
            token.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        questions: pd.DataFrame,
        features: Path,
        batch_tokens: int,
        max_new_tokens: int | None = None,
    ) -> None:
        self.model = model
        file = open_arrays(features, framework="pt")
        visual = Images(model, file)
        try:
            with torch.inference_mode():
                model.project(visual.features[0][:1].to(model.device))
        except RuntimeError as error:  # another width or type
            raise PrunecalError(f"{features} does not fit the model ({error}); {RERUN}") from error
        self.image_ids: list[str] = file.facts["image_id"]
        self.questions = Questions(model, questions, self.image_ids, features)
        blocks = [sum(pair) for pair in zip(visual.counts, visual.glue_counts, strict=True)]
        self.questions.refuse_long(blocks, max_new_tokens or 0, model.decoder.most_positions)
        self.reader: Reader = (
            OptionReader(model, self.questions.asked)
            if max_new_tokens is None
            else GreedyReader(model, max_new_tokens)
        )
        with torch.inference_mode():
            system = torch.tensor(self.questions.system, device=model.device)
            past = model.decoder.prefill(model.decoder.embed(system))
        self.runner = Runner(model, visual, past, len(system), batch_tokens)

    @property
    def visual(self) -> Images:
        """The visual tokens of the data set's images."""
        return self.runner.visual

    @property
    def is_short(self) -> bool:
        """Whether answers are short texts."""
        return isinstance(self.reader, GreedyReader)

    def forget(self) -> None:
        """Drop what cells have left for later ones, as before the first cell."""
        self.runner.memory = Memory()

    def run(
        self,
        strategy: ModuleType,
        params: Any,
        budget: Budget,
        order: Sequence[np.ndarray] | Merged | None,
        coverage: np.ndarray | None,
        match: str = schedules.KEPT,
        pairs: Sequence[tuple[str, str]] | None = None,
    ) -> Answers:
        """Run one cell.

        Args:
            strategy: the strategy's module.
            params: its settings.
            budget: visual tokens to keep of each image, K.
            order: of each row int16 [K], the ranking: tokens to keep in order of selection; or
                merged tokens; None for a strategy that prunes inside the decoder. A row is an
                image, unless there are pairs.
            coverage: float32 [R], evidence coverage of those tokens; None in the same case.
            match: what the budget is matched by, of a strategy that prunes inside the decoder.
            pairs: the image and the digest of the text that each row is of, from a strategy that
                ranks for each question.

        Raises:
            PrunecalError: a ranking of other images or tokens, a budget that cannot be matched, NaN
                or infinite logits (names the question), or not enough memory for a single question.
        """
        if self.is_short and order is None:
            raise PrunecalError(
                "short answers are not decoded by strategies that drop visual tokens inside the "
                "decoder; leave the strategy out"
            )
        counts, questions = self.visual.counts, self.questions
        kept_counts = np.array([kept_tokens(budget, count) for count in counts])
        schedule: Schedule = {}
        # the questions of a row share its image's tokens, and so a prefix
        row_of_question: list[int] = questions.images.tolist()
        image_of_row: Sequence[int] = range(len(counts))
        if pairs is not None:
            texts = [text for text, _ in questions.asked]
            row_of_question, image_of_row = rows_of(pairs, self.image_ids, row_of_question, texts)
        held: list[HeldPart] = []
        if order is None or coverage is None:
            decoder = self.model.decoder
            schedule = token_counts.schedule(decoder, strategy, params, budget, counts, match)
            kept_counts = np.array([schedule[count][-1].entering for count in counts])
            answer: Answer = partial(self.runner.inside, strategy, params, schedule, held)
            sizes, apart = counts, counts  # FastV's arrays hold equally many tokens of each image
        else:
            kept_of_row = kept_counts[image_of_row].tolist()
            if not isinstance(order, Merged):
                self.visual.refuse_other_ranking(order, kept_of_row, image_of_row)
            answer = partial(
                self.runner.before, params, order, coverage, image_of_row, short=self.is_short
            )
            sizes, apart = kept_of_row, [0] * len(image_of_row)
        glue = [self.visual.glue_counts[image] for image in image_of_row]
        planned = plan(
            row_of_question,
            questions.texts,
            [size + more for size, more in zip(sizes, glue, strict=True)],
            self.runner.batch_tokens,
            apart,
        )
        return self._answers(
            *micro_batches.read(planned, answer, self.reader, questions.texts),
            n_visual=kept_counts[questions.images],
            budget_tokens=token_counts.budget_tokens(budget, counts, kept_counts, questions.images),
            tokens_per_layer=token_counts.tokens_per_layer(
                schedule, counts, kept_counts, questions.of_rows, len(self.model.decoder.layers)
            ),
            held=held,
        )

    def run_smaller(
        self, strategy: ModuleType, params: Any, budget: Budget, features: Path
    ) -> Answers:
        """Run a cell whose images were made smaller before the vision tower.

        Args:
            strategy: the strategy's module.
            params: its settings.
            budget: visual tokens that were asked for.
            features: of the smaller images, with their evidence coverage.

        Raises:
            PrunecalError: the features are of other images, or as `run`.
        """
        file = open_arrays(features, framework="pt")
        if file.facts["image_id"] != self.image_ids:
            raise PrunecalError(f"{features} is of other images than the questions; {RERUN}")
        smaller = copy(self)
        smaller.runner = replace(self.runner, visual=Images(self.model, file))
        counts = smaller.visual.counts
        order = [np.arange(count, dtype=np.int16) for count in counts]
        covered = file.get_tensor("covered").numpy()
        answers = smaller.run(strategy, params, ALL, order, covered)
        tokens = token_counts.budget_tokens(
            budget, self.visual.counts, np.array(counts), self.questions.images
        )
        return replace(answers, budget_tokens=tokens)

    def run_blind(self) -> Answers:
        """Run the cell in which no question has an image.

        Raises:
            PrunecalError: the model has no such prompts, answers are short texts, or as `run`.
        """
        tokenize = getattr(self.model, "tokenize_without_image", None)
        if tokenize is None or self.is_short:
            who = f"models of family {self.model.settings['family']!r}"
            fault = "short answers are not decoded"
            if not self.is_short:
                fault = f"prompts of {who} are not known"
            raise PrunecalError(f"{fault} without an image; leave the strategy blind out")
        texts = list(dict.fromkeys(text for text, _ in self.questions.asked))
        prompts = tokenize(texts)
        groups = [at // BLIND_ROW for at in range(len(prompts))]
        planned = plan(groups, prompts, 0, self.runner.batch_tokens)
        columns, covered = micro_batches.read(
            planned, self.runner.without_image, self.reader, prompts
        )
        place = {text: at for at, text in enumerate(texts)}
        asked = np.array([place[text] for text, _ in self.questions.asked])
        return self._answers(
            [column[asked] for column in columns],
            covered[asked],
            n_visual=np.zeros(len(asked)),
            budget_tokens=None,
            tokens_per_layer=0.0,
            distinct=len(prompts),
        )

    def _answers(
        self,
        columns: list[np.ndarray],
        covered: np.ndarray,
        *,
        n_visual: np.ndarray,
        budget_tokens: int | None,
        tokens_per_layer: float,
        distinct: int | None = None,
        held: Sequence[HeldPart] = (),
    ) -> Answers:
        """Return a cell's answers from those of its distinct questions.

        Args:
            columns: of the reader.
            covered: evidence coverage.
            n_visual: visual tokens kept.
            budget_tokens: as in `Answers`.
            tokens_per_layer: as in `Answers`.
            distinct: prompts that were computed; as many as distinct questions if not given.
            held: what is left inside the decoder, by micro-batch.
        """
        self.questions.refuse_not_finite(self.reader.numbers(columns))
        repeat = self.questions.row_to_distinct
        return Answers(
            n_visual=n_visual[repeat].astype(np.int32),
            coverage=covered[repeat].astype(np.float32),
            budget_tokens=budget_tokens,
            tokens_per_layer=tokens_per_layer,
            distinct=len(self.questions) if distinct is None else distinct,
            **patches_per_row(held, repeat),
            **self.reader.collect(columns, repeat),
        )
