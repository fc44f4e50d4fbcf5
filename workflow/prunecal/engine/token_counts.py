"""How many visual tokens a cell keeps: where they are dropped, and what it states of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from prunecal.engine import selections
from prunecal.study import schedules
from prunecal.study.budgets import Budget, kept_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    from prunecal.engine.decoder import Decoder
    from prunecal.engine.interfaces import Stage

    Schedule = Mapping[int, list[Stage]]  # by an image's visual tokens


def schedule(
    decoder: Decoder,
    strategy: ModuleType,
    params: Any,
    budget: Budget,
    counts: Sequence[int],
    match: str,
) -> Schedule:
    """Return where a strategy drops tokens inside a decoder so that a budget is met.

    Args:
        decoder: the language model.
        strategy: the strategy's module.
        params: its settings.
        budget: visual tokens to keep of each image.
        counts: visual tokens of each image.
        match: what the budget is matched by.

    Raises:
        PrunecalError: a budget that cannot be matched, stages that do not fit the decoder, or
            such as leave another number of tokens.
    """
    depth = len(decoder.layers)

    def of_image(visual: int) -> list[Stage]:
        kept = kept_tokens(budget, visual)
        if match == schedules.KEPT:
            listed = strategy.stages(visual, kept, depth, params)
            selections.refuse_other_budget(strategy, listed, kept, visual)
            return listed
        shape = schedules.Shape.of(decoder.backbone.config)
        return schedules.matched(
            lambda left: strategy.stages(visual, left, depth, params), match, kept, visual, shape
        )

    return {visual: of_image(visual) for visual in set(counts)}


def budget_tokens(
    budget: Budget, counts: Sequence[int], kept: np.ndarray, asked: np.ndarray
) -> int | None:
    """Return what a share means in tokens, a rounded mean, if other numbers of tokens are kept.

    Args:
        budget: visual tokens to keep of each image.
        counts: visual tokens of each image.
        kept: int [I], those that are kept.
        asked: indices of the images that questions are about.
    """
    images = np.unique(asked)
    nominal = np.array([kept_tokens(budget, counts[image]) for image in images.tolist()])
    if isinstance(budget, int) or (nominal == kept[images]).all():
        return None
    return round(float(nominal.mean()))


def tokens_per_layer(
    stages: Schedule, counts: Sequence[int], kept: np.ndarray, asked: np.ndarray, depth: int
) -> float:
    """Return the mean over questions of the visual tokens that a decoder layer computes on.

    Args:
        stages: where tokens are dropped; empty for a strategy that drops them before the decoder.
        counts: visual tokens of each image.
        kept: int [I], those that are kept.
        asked: the index of each question's image.
        depth: layers of the decoder.
    """
    pairs = [(counts[image], int(kept[image])) for image in asked.tolist()]
    means = {
        (tokens, number): schedules.tokens_per_layer(stages[tokens], tokens, depth)
        if stages
        else number
        for tokens, number in set(pairs)
    }
    return float(np.mean([means[pair] for pair in pairs]) if len(means) > 1 else means[pairs[0]])
