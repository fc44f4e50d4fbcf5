"""Run the cells of a data set, one after another, on a loaded model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prunecal.core.cli import log
from prunecal.core.errors import RERUN, PrunecalError
from prunecal.engine import batch as batches
from prunecal.engine import stages
from prunecal.engine.device import send
from prunecal.engine.options import Columns, OptionTokens, summed
from prunecal.engine.planner import halves, plan
from prunecal.storage import files

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    import pandas as pd
    from torch import Tensor

    from prunecal.engine.interfaces import VisionLanguageModel
    from prunecal.engine.planner import Row


@dataclass
class Answers:
    """Results of a cell, one entry per row of the data set.

    Attributes:
        logits: float32 [options] for each row.
        log_normaliser: log-sum-exp of the logits of the whole vocabulary, float32 [rows].
        top_token: the vocabulary's token with the largest logit, int32 [rows].
        spelling_logits: as `logits`, but the log-sum-exp over all spellings of an option; None
            where the model family names none.
        letter_logits: of A to D, float32 [rows, 4]; None where options are not letters.
        n_visual: number of visual tokens kept, int32 [rows].
        coverage: evidence coverage of the kept tokens, float32 [rows].
        tokens_per_layer: mean number of visual tokens per decoder layer.
        distinct: number of distinct pairs of image and question, which were computed once.
    """

    logits: list[np.ndarray]
    log_normaliser: np.ndarray
    top_token: np.ndarray
    spelling_logits: list[np.ndarray] | None
    letter_logits: np.ndarray | None
    n_visual: np.ndarray
    coverage: np.ndarray
    tokens_per_layer: float
    distinct: int


class Session:
    """A loaded model with a data set's distinct questions, ready to run cells.

    Args:
        model: a loaded model of one of the families.
        questions: columns question_id, image_id, text and options.
        features: the data set's features.safetensors.
        batch_tokens: tokens per micro-batch.

    Attributes:
        option_tokens: the tokens that stand for the answer options.

    Raises:
        PrunecalError: the features do not fit the model, an image has no features, a prompt is
            longer than the model's positions, or the options of a question begin with the same
            token.
    """

    def __init__(
        self, model: VisionLanguageModel, questions: pd.DataFrame, features: Path, batch_tokens: int
    ) -> None:
        self.model, self.device, self.batch_tokens = model, model.device, batch_tokens
        file = files.open_arrays(features, framework="pt")
        self.features = file.get_tensor("features")
        try:
            with torch.inference_mode():
                model.project(self.features[:1, :1].to(model.device))
        except RuntimeError as error:  # another width or type
            raise PrunecalError(f"{features} does not fit the model ({error}); {RERUN}") from error
        self.visual_tokens = self.features.shape[1]
        image_index = {image: at for at, image in enumerate(file.facts["image_id"])}
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
        self._refuse_long_prompts()
        self.asked = [(text, options) for _, text, options in distinct]
        self.option_tokens = OptionTokens.of(model, self.asked)
        self.columns = Columns(self.option_tokens.first.values())
        self.spellings = Columns(
            token for tokens in self.option_tokens.spellings.values() for token in tokens
        )
        with torch.inference_mode():
            tokens = torch.tensor(self.system, device=self.device)
            self.past = model.decoder.prefill(model.decoder.embed(tokens))

    def run(
        self,
        strategy: ModuleType,
        params: Any,
        budget: int,
        order: np.ndarray | None,
        coverage: np.ndarray | None,
    ) -> Answers:
        """Run one cell.

        Args:
            strategy: the strategy's module.
            params: its settings.
            budget: visual tokens to keep, K.
            order: int16 [I, K], the ranking: tokens to keep per image in order of selection; None
                for a strategy that prunes inside the decoder.
            coverage: float32 [I], evidence coverage of those tokens; None in the same case.

        Raises:
            PrunecalError: a ranking of other images or tokens, NaN or infinite logits (names the
                question), or not enough memory for a single question.
        """
        images, tokens = self.features.shape[:2]
        if order is not None and (len(order) != images or order.max() >= tokens):
            raise PrunecalError(
                "the ranking is of other images or tokens than the features; delete the strategy's "
                "ranking.safetensors and run snakemake again"
            )
        if order is None or coverage is None:
            run_batch = partial(self._decoder_batch, strategy, params, budget)
        else:
            kept = torch.from_numpy(order).long().sort(dim=1).values
            run_batch = partial(self._vision_batch, params, budget, kept, coverage)
        visual = self.visual_tokens if order is None else budget
        pending = plan(self.images.tolist(), self.texts, visual, self.batch_tokens)[::-1]
        indices: list[int] = []
        # one tensor per batch
        logits, spelled, normalisers, tops, covered = [], [], [], [], []
        of_options, of_spellings = (
            torch.tensor(columns.tokens, device=self.device, dtype=torch.int64)
            for columns in (self.columns, self.spellings)
        )
        decoder = self.model.decoder
        with torch.inference_mode():
            while pending:
                rows = pending.pop()
                try:
                    states, part = run_batch(rows)
                    read = [decoder.logits(states, some) for some in (of_options, of_spellings)]
                    normaliser, top = decoder.over_vocabulary(states)
                except (torch.OutOfMemoryError, RuntimeError) as error:
                    pending += self._smaller(rows, error)
                    continue
                logits.append(read[0])
                spelled.append(read[1])
                normalisers.append(normaliser)
                tops.append(top)
                covered.append(part)
                indices += [question for row in rows for question in row.questions]
        # the plan orders questions by length: restore the order of the data set
        back = np.argsort(indices)
        table, of_spelling, log_normaliser, top_token, coverages = (
            torch.cat(parts).cpu().numpy()[back]
            for parts in (logits, spelled, normalisers, tops, covered)
        )
        self._refuse_not_finite(np.column_stack((table, log_normaliser)))
        repeat = self.row_to_distinct
        first, spellings = self.option_tokens.first, self.option_tokens.spellings
        letters = self.option_tokens.letters
        mine = [
            row[self.columns.of(first[option] for option in options)]
            for row, (_, options) in zip(table, self.asked, strict=True)
        ]
        mine_spelled = [
            summed(row, [self.spellings.of(spellings[option]) for option in options])
            for row, (_, options) in zip(of_spelling, self.asked, strict=True)
            if spellings
        ]
        return Answers(
            logits=[mine[at] for at in repeat],
            log_normaliser=log_normaliser[repeat],
            top_token=top_token[repeat].astype(np.int32),
            spelling_logits=[mine_spelled[at] for at in repeat] if spellings else None,
            letter_logits=table[:, self.columns.of(letters)][repeat] if letters else None,
            n_visual=np.full(len(repeat), budget, np.int32),
            coverage=coverages[repeat].astype(np.float32),
            tokens_per_layer=self._tokens_per_layer(strategy, params, budget),
            distinct=len(mine),
        )

    def _vision_batch(
        self, params: Any, budget: int, kept: Tensor, coverage: np.ndarray, rows: list[Row]
    ) -> tuple[Tensor, Tensor]:
        """Answer rows whose visual tokens were dropped before the decoder."""
        images = [row.image for row in rows]
        tokens = kept[images]
        features = self.features[torch.tensor(images)[:, None], tokens]
        compact = getattr(params, "positions", "original") == "compact"  # `full` drops none
        places = torch.arange(budget).expand_as(tokens) if compact else tokens
        prompt = self._assemble(rows, features, places, budget if compact else self.visual_tokens)
        states = batches.answer_states(self.model.decoder, prompt, self.past)
        questions = [len(row.questions) for row in rows]
        return states, torch.from_numpy(np.repeat(coverage[images], questions))

    def _decoder_batch(
        self, strategy: ModuleType, params: Any, budget: int, rows: list[Row]
    ) -> tuple[Tensor, Tensor]:
        """Answer rows whose visual tokens the strategy drops inside the decoder."""
        features = self.features[[row.image for row in rows]]
        places = torch.arange(self.visual_tokens).expand(len(rows), -1)
        prompt = self._assemble(rows, features, places, self.visual_tokens)
        listed = strategy.stages(self.visual_tokens, budget, len(self.model.decoder.layers), params)
        pruned = stages.run(self.model.decoder, prompt, self.past, listed, strategy, params)
        return pruned.states, pruned.held.coverage(send(features, self.device), prompt.question_row)

    def _assemble(
        self, rows: list[Row], features: Tensor, places: Tensor, text_after: int
    ) -> batches.Batch:
        system = len(self.system)
        visual = self.model.project(send(features, self.device))
        positions = send(places, self.device) + system
        return batches.assemble(rows, visual, positions, system + text_after, self.model.decoder)

    def _smaller(self, rows: list[Row], error: RuntimeError) -> list[list[Row]]:
        """Return the halves of a batch that did not fit into memory; reraise other errors."""
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise error
        parts = halves(rows, self.texts)
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

    def _refuse_long_prompts(self) -> None:
        most = self.model.decoder.most_positions
        lengths = len(self.system) + self.visual_tokens + np.array([len(ids) for ids in self.texts])
        rows = np.flatnonzero(lengths[self.row_to_distinct] > (most or np.inf))
        if len(rows):
            length = lengths[self.row_to_distinct[rows[0]]]
            text = length - len(self.system) - self.visual_tokens
            raise PrunecalError(
                f"question {self.question_ids[rows[0]]!r} makes a prompt of {length} tokens "
                f"({len(self.system)} of the system text, {self.visual_tokens} visual, {text} of "
                f"the question) but the model has {most} positions, and {len(rows) - 1} more of "
                f"{len(self.question_ids)} questions are too long; shorten them or leave them out"
            )

    def _tokens_per_layer(self, strategy: ModuleType, params: Any, budget: int) -> float:
        if strategy.PRUNES == "before_llm":
            return float(budget)
        depth = len(self.model.decoder.layers)
        listed = strategy.stages(self.visual_tokens, budget, depth, params)
        return stages.tokens_per_layer(listed, self.visual_tokens, depth)

    def _refuse_not_finite(self, logits: np.ndarray) -> None:
        wrong = ~np.isfinite(logits).all(axis=1)
        if wrong.any():
            row = int(np.flatnonzero(np.isin(self.row_to_distinct, np.flatnonzero(wrong)))[0])
            raise PrunecalError(
                f"question {self.question_ids[row]!r} has NaN or infinite logits "
                f"({int(wrong.sum())} questions in all); check the weights, or use a wider dtype"
            )
