"""Run a micro-batch of prompts, whose visual tokens are dropped before the decoder or inside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prunecal.engine import batch as batches
from prunecal.engine import stages
from prunecal.engine.merged import Merged
from prunecal.engine.unpruned import Memory, Unpruned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    from torch import Tensor

    from prunecal.engine.answers import HeldPart
    from prunecal.engine.decoder import Past
    from prunecal.engine.images import Images
    from prunecal.engine.interfaces import Stage, VisionLanguageModel
    from prunecal.engine.planner import Row


@dataclass
class Runner:
    """Runs planned micro-batches on a loaded model.

    Attributes:
        model: the model.
        visual: the visual tokens of the data set's images.
        past: keys and values of the text before the image.
        system: tokens of that text.
        batch_tokens: tokens per micro-batch.
        memory: unpruned micro-batches of earlier cells.
    """

    model: VisionLanguageModel
    visual: Images
    past: Past
    system: int
    batch_tokens: int
    memory: Memory = field(default_factory=Memory)

    def before(
        self,
        params: Any,
        order: Sequence[np.ndarray] | Merged,
        coverage: np.ndarray,
        image_of_row: Sequence[int],
        rows: list[Row],
        *,
        short: bool,
    ) -> tuple[Any, ...]:
        """Answer rows whose visual tokens were dropped or merged before the decoder.

        Args:
            params: the strategy's settings.
            order: of each row of the ranking, as `Session.run` takes it.
            coverage: float32 [R], the evidence coverage of each.
            image_of_row: the image of each.
            rows: planned, each of a row of the ranking.
            short: whether answers are short texts.

        Returns:
            States and coverages; of short answers also the prompt, and its keys and values.
        """
        places = [row.image for row in rows]
        images = [image_of_row[place] for place in places]
        if isinstance(order, Merged):
            pairs = zip(places, images, strict=True)
            parts = [self.visual.merged(place, image, order) for place, image in pairs]
            prompt, _ = batches.assemble(rows, parts, self.model, self.system)
        else:
            kept = [torch.from_numpy(order[place]).long().sort().values for place in places]
            compact = getattr(params, "positions", "original") == "compact"  # `full` drops none
            prompt, _ = self._assemble(rows, images, kept, compact=compact)
        cache: Past | None = [] if short else None
        states = batches.answer_states(self.model.decoder, prompt, self.past, cache)
        questions = [len(row.questions) for row in rows]
        covered = torch.from_numpy(np.repeat(coverage[places], questions))
        return (states, covered) if cache is None else (states, covered, prompt, cache)

    def inside(
        self,
        strategy: ModuleType,
        params: Any,
        schedule: Mapping[int, list[Stage]],
        held: list[HeldPart],
        rows: list[Row],
    ) -> tuple[Tensor, Tensor]:
        """Answer rows whose visual tokens a strategy drops inside the decoder.

        Args:
            strategy: the strategy's module.
            params: its settings.
            schedule: where it drops them, by an image's visual tokens.
            held: list to which is appended what is left.
            rows: planned, of images with equally many tokens.

        Returns:
            States and coverages.
        """
        images = [row.image for row in rows]
        unpruned = self.memory.of(
            rows,
            lambda: Unpruned(
                self.model.decoder,
                self.past,
                *self._assemble(rows, images, [None] * len(rows), compact=False),
            ),
        )
        listed = schedule[unpruned.batch.visual]
        pruned = stages.run(unpruned, listed, strategy, params, self.batch_tokens)
        questions = [question for row in rows for question in row.questions]
        patch = pruned.held.patch.to(torch.int16)
        held.append((questions, patch, pruned.held.within_merged()))
        covered = pruned.held.coverage(unpruned.features, unpruned.batch.question_row)
        return pruned.states, covered

    def without_image(self, rows: list[Row]) -> tuple[Tensor, Tensor]:
        """Answer rows of whole prompts that have no image; their coverage is 0."""
        batch = batches.without_image(rows, self.model.decoder, self.model.device)
        states = batches.answer_states(self.model.decoder, batch, None)
        return states, torch.zeros(len(states))

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
        return batches.assemble(rows, parts, self.model, self.system)
