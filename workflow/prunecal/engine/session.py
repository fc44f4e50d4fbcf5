"""Run the cells of a data set, one after another, on a loaded model."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prunecal.core.cli import log
from prunecal.core.errors import RERUN, PrunecalError
from prunecal.engine import batch as batches
from prunecal.engine import stages
from prunecal.engine.answers import Answers, patches_per_row
from prunecal.engine.greedy import GreedyReader
from prunecal.engine.images import Images
from prunecal.engine.merged import Merged
from prunecal.engine.options import OptionReader
from prunecal.engine.pairs import rows_of
from prunecal.engine.planner import halves, plan
from prunecal.engine.unpruned import Memory, Unpruned
from prunecal.storage import files
from prunecal.study import schedules
from prunecal.study.budgets import ALL, Budget, kept_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import ModuleType

    import pandas as pd
    from torch import Tensor

    from prunecal.engine.answers import HeldPart
    from prunecal.engine.decoder import Past
    from prunecal.engine.interfaces import Stage, VisionLanguageModel
    from prunecal.engine.planner import Row

    Batched = Callable[[list[Row]], tuple[Any, ...]]

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
        reader: reads answers from final states.

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
        self.model, self.device, self.batch_tokens = model, model.device, batch_tokens
        file = files.open_arrays(features, framework="pt")
        self.visual = Images(model, file)
        try:
            with torch.inference_mode():
                model.project(self.visual.features[0][:1].to(model.device))
        except RuntimeError as error:  # another width or type
            raise PrunecalError(f"{features} does not fit the model ({error}); {RERUN}") from error
        self.image_ids: list[str] = file.facts["image_id"]
        image_index = {image: at for at, image in enumerate(self.image_ids)}
        missing = questions.loc[~questions["image_id"].isin(image_index.keys()), "image_id"]
        if len(missing):
            raise PrunecalError(f"{features} lacks image {missing.iloc[0]!r}; {RERUN}")
        self.question_ids = questions["question_id"].to_numpy()
        # identical questions about one image are computed once
        columns = (questions["image_id"], questions["text"], map(tuple, questions["options"]))
        triples = list(zip(*columns, strict=True))
        distinct = {triple: at for at, triple in enumerate(dict.fromkeys(triples))}
        self.row_to_distinct = np.array([distinct[triple] for triple in triples])
        self.images = np.array([image_index[image] for image, _, _ in distinct])
        self.system, self.texts = self._tokenize([text for _, text, _ in distinct])
        self._refuse_long_prompts(max_new_tokens or 0)
        self.asked = [(text, options) for _, text, options in distinct]
        self.reader: OptionReader | GreedyReader = (
            OptionReader(model, self.asked)
            if max_new_tokens is None
            else GreedyReader(model, max_new_tokens)
        )
        self._unpruned = Memory()
        with torch.inference_mode():
            tokens = torch.tensor(self.system, device=self.device)
            self.past = model.decoder.prefill(model.decoder.embed(tokens))

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
        counts = self.visual.counts
        kept_counts = nominal = np.array([kept_tokens(budget, count) for count in counts])
        schedule: dict[int, list[Stage]] = {}  # by an image's visual tokens
        # the questions of a row share its image's tokens, and so a prefix
        row_of_question: list[int] = self.images.tolist()
        image_of_row: Sequence[int] = range(len(self.visual))
        if pairs is not None:
            texts = [text for text, _ in self.asked]
            row_of_question, image_of_row = rows_of(pairs, self.image_ids, row_of_question, texts)
        held: list[HeldPart] = []
        if order is None or coverage is None:
            schedule = {
                count: self._stages(strategy, params, match, kept_tokens(budget, count), count)
                for count in set(counts)
            }
            kept_counts = np.array([schedule[count][-1].entering for count in counts])
            run_batch: Batched = partial(self._decoder_batch, strategy, params, schedule, held)
            sizes, apart = counts, counts  # FastV's arrays hold equally many tokens of each image
        else:
            kept_of_row = kept_counts[image_of_row].tolist()
            if not isinstance(order, Merged):
                self.visual.refuse_other_ranking(order, kept_of_row, image_of_row)
            run_batch = partial(self._vision_batch, params, order, coverage, image_of_row)
            sizes, apart = kept_of_row, [0] * len(image_of_row)
        glue = [self.visual.glue_counts[image] for image in image_of_row]
        pending = plan(
            row_of_question,
            self.texts,
            [size + more for size, more in zip(sizes, glue, strict=True)],
            self.batch_tokens,
            apart,
        )
        return self._answers(
            *self._read(pending, run_batch, self.texts),
            n_visual=kept_counts[self.images],
            budget_tokens=self._budget_tokens(budget, nominal, kept_counts),
            tokens_per_layer=self._tokens_per_layer(schedule, kept_counts),
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
        file = files.open_arrays(features, framework="pt")
        if file.facts["image_id"] != self.image_ids:
            raise PrunecalError(f"{features} is of other images than the questions; {RERUN}")
        smaller = copy(self)
        smaller.visual = Images(self.model, file)
        counts = smaller.visual.counts
        order = [np.arange(count, dtype=np.int16) for count in counts]
        covered = file.get_tensor("covered").numpy()
        answers = smaller.run(strategy, params, ALL, order, covered)
        nominal = np.array([kept_tokens(budget, count) for count in self.visual.counts])
        tokens = self._budget_tokens(budget, nominal, np.array(counts))
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
        texts = list(dict.fromkeys(text for text, _ in self.asked))
        prompts, decoder = tokenize(texts), self.model.decoder

        def run_batch(rows: list[Row]) -> tuple[Tensor, Tensor]:
            batch = batches.without_image(rows, decoder, self.device)
            states = batches.answer_states(decoder, batch, None)
            return states, torch.zeros(len(states))

        groups = [at // BLIND_ROW for at in range(len(prompts))]
        planned = plan(groups, prompts, 0, self.batch_tokens)
        columns, covered = self._read(planned, run_batch, prompts)
        place = {text: at for at, text in enumerate(texts)}
        asked = np.array([place[text] for text, _ in self.asked])
        return self._answers(
            [column[asked] for column in columns],
            covered[asked],
            n_visual=np.zeros(len(asked)),
            budget_tokens=None,
            tokens_per_layer=0.0,
            distinct=len(prompts),
        )

    def _read(
        self, planned: list[list[Row]], run_batch: Batched, texts: list[list[int]]
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Run micro-batches of prompts and read their answers.

        Returns:
            The reader's columns, and the coverage of each prompt, in the order of `texts`.
        """
        pending = planned[::-1]
        indices: list[int] = []
        read: list[tuple[Tensor, ...]] = []  # per batch, coverage last
        with torch.inference_mode():
            while pending:
                rows = pending.pop()
                try:
                    states, coverages, *prompt = run_batch(rows)
                    read.append((*self.reader.read(states, *prompt), coverages))
                except (torch.OutOfMemoryError, RuntimeError) as error:
                    pending += self._smaller(rows, texts, error)
                    continue
                indices += [question for row in rows for question in row.questions]
        # the plan orders questions by length: restore the order of the data set
        back = np.argsort(indices)
        *columns, covered = (
            torch.cat(parts).cpu().numpy()[back] for parts in zip(*read, strict=True)
        )
        return columns, covered

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
        self._refuse_not_finite(self.reader.numbers(columns))
        repeat = self.row_to_distinct
        return Answers(
            n_visual=n_visual[repeat].astype(np.int32),
            coverage=covered[repeat].astype(np.float32),
            budget_tokens=budget_tokens,
            tokens_per_layer=tokens_per_layer,
            distinct=len(self.asked) if distinct is None else distinct,
            **patches_per_row(held, repeat),
            **self.reader.collect(columns, repeat),
        )

    def _vision_batch(
        self,
        params: Any,
        order: Sequence[np.ndarray] | Merged,
        coverage: np.ndarray,
        image_of_row: Sequence[int],
        rows: list[Row],
    ) -> tuple[Any, ...]:
        """Answer rows whose visual tokens were dropped or merged before the decoder.

        Returns:
            States and coverages; of short answers also the prompt, and its keys and values.
        """
        places = [row.image for row in rows]
        images = [image_of_row[place] for place in places]
        if isinstance(order, Merged):
            pairs = zip(places, images, strict=True)
            parts = [self.visual.merged(place, image, order) for place, image in pairs]
            prompt, _ = batches.assemble(rows, parts, self.model, len(self.system))
        else:
            kept = [torch.from_numpy(order[place]).long().sort().values for place in places]
            compact = getattr(params, "positions", "original") == "compact"  # `full` drops none
            prompt, _ = self._assemble(rows, images, kept, compact=compact)
        cache: Past | None = [] if self.is_short else None
        states = batches.answer_states(self.model.decoder, prompt, self.past, cache)
        questions = [len(row.questions) for row in rows]
        covered = torch.from_numpy(np.repeat(coverage[places], questions))
        return (states, covered) if cache is None else (states, covered, prompt, cache)

    def _decoder_batch(
        self,
        strategy: ModuleType,
        params: Any,
        schedule: Mapping[int, list[Stage]],
        held: list[HeldPart],
        rows: list[Row],
    ) -> tuple[Tensor, Tensor]:
        """Answer rows whose visual tokens the strategy drops inside the decoder; note in `held`."""
        images = [row.image for row in rows]
        unpruned = self._unpruned.of(
            rows,
            lambda: Unpruned(
                self.model.decoder,
                self.past,
                *self._assemble(rows, images, [None] * len(rows), compact=False),
            ),
        )
        listed = schedule[unpruned.batch.visual]  # all rows have equally many
        pruned = stages.run(unpruned, listed, strategy, params, self.batch_tokens)
        questions = [question for row in rows for question in row.questions]
        patch = pruned.held.patch.to(torch.int16)
        held.append((questions, patch, pruned.held.within_merged()))
        covered = pruned.held.coverage(unpruned.features, unpruned.batch.question_row)
        return pruned.states, covered

    def _assemble(
        self,
        rows: list[Row],
        images: Sequence[int],
        kept: Sequence[Tensor | None],
        *,
        compact: bool,
    ) -> tuple[batches.Batch, Tensor]:
        """Return a micro-batch, and its rows' features [B, V, D]."""
        parts = [
            self.visual.part(image, tokens, compact=compact)
            for image, tokens in zip(images, kept, strict=True)
        ]
        return batches.assemble(rows, parts, self.model, len(self.system))

    def _smaller(
        self, rows: list[Row], texts: list[list[int]], error: RuntimeError
    ) -> list[list[Row]]:
        """Return the halves of a batch that did not fit into memory; reraise other errors."""
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise error
        parts = halves(rows, texts)
        if not parts:
            raise PrunecalError(
                "out of memory with a single question; request more memory or a larger GPU"
            ) from error
        log.warning("out of memory with %d images in a micro-batch: halving it", len(rows))
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return parts[::-1]

    def _tokenize(self, texts: list[str]) -> tuple[list[int], list[list[int]]]:
        distinct = list(dict.fromkeys(texts))
        system, after = self.model.tokenize(distinct)
        by_text = dict(zip(distinct, after, strict=True))
        return system, [by_text[text] for text in texts]

    @property
    def is_short(self) -> bool:
        """Whether answers are short texts."""
        return isinstance(self.reader, GreedyReader)

    def _refuse_long_prompts(self, answer: int) -> None:
        most = self.model.decoder.most_positions
        blocks = np.array(self.visual.counts) + np.array(self.visual.glue_counts)
        visual = blocks[self.images]
        texts = np.array([len(ids) for ids in self.texts])
        lengths = len(self.system) + visual + texts + answer
        rows = np.flatnonzero(lengths[self.row_to_distinct] > (most or np.inf))
        if len(rows):
            at = self.row_to_distinct[rows[0]]
            text, more = len(self.texts[at]), f", {answer} of its answer" if answer else ""
            raise PrunecalError(
                f"question {self.question_ids[rows[0]]!r} makes a prompt of {lengths[at]} tokens "
                f"({len(self.system)} of the system text, {visual[at]} visual, {text} of "
                f"the question{more}) but the model has {most} positions, and {len(rows) - 1} more "
                f"of {len(self.question_ids)} questions are too long; shorten or leave them out"
            )

    def _stages(
        self, strategy: ModuleType, params: Any, match: str, budget: int, visual: int
    ) -> list[Stage]:
        """Return where a strategy drops an image's tokens so that the budget is met."""
        depth = len(self.model.decoder.layers)
        if match == schedules.KEPT:
            return strategy.stages(visual, budget, depth, params)
        shape = schedules.Shape.of(self.model.decoder.backbone.config)
        return schedules.matched(
            lambda left: strategy.stages(visual, left, depth, params), match, budget, visual, shape
        )

    def _budget_tokens(self, budget: Budget, nominal: np.ndarray, kept: np.ndarray) -> int | None:
        """Return what a share means in tokens, if other numbers of tokens are kept."""
        asked = np.unique(self.images)
        if isinstance(budget, int) or (nominal[asked] == kept[asked]).all():
            return None
        return round(float(nominal[asked].mean()))

    def _tokens_per_layer(self, schedule: Mapping[int, list[Stage]], kept: np.ndarray) -> float:
        """Return the mean over questions of the visual tokens that a decoder layer computes on."""
        asked = self.images[self.row_to_distinct]
        depth = len(self.model.decoder.layers)
        pairs = [(self.visual.counts[image], int(kept[image])) for image in asked.tolist()]
        means = {
            (tokens, number): schedules.tokens_per_layer(schedule[tokens], tokens, depth)
            if schedule
            else number
            for tokens, number in set(pairs)
        }
        return float(
            np.mean([means[pair] for pair in pairs]) if len(means) > 1 else means[pairs[0]]
        )

    def _refuse_not_finite(self, logits: np.ndarray) -> None:
        wrong = ~np.isfinite(logits).all(axis=1)
        if wrong.any():
            row = int(np.flatnonzero(np.isin(self.row_to_distinct, np.flatnonzero(wrong)))[0])
            raise PrunecalError(
                f"question {self.question_ids[row]!r} has NaN or infinite logits "
                f"({int(wrong.sum())} questions in all); check the weights, or use a wider dtype"
            )
