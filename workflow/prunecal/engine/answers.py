"""A cell's answers, one entry per row of the data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from prunecal.engine.greedy import ShortAnswers

    # questions of a micro-batch, int16 [Q, V] as `held.Held.patch`, bool [Q, N] or None
    HeldPart = tuple[list[int], Tensor, Tensor | None]


@dataclass
class Answers:
    """Results of a cell, one entry per row of the data set.

    Attributes:
        n_visual: number of visual tokens kept, int32 [rows].
        coverage: evidence coverage of the kept tokens, float32 [rows].
        budget_tokens: what a share of images' tokens means, a mean over images, rounded, where
            another number is kept; else None.
        tokens_per_layer: mean number of visual tokens per decoder layer.
        distinct: number of distinct pairs of image and question, which were computed once.
        logits: float32 [options] for each row; none of short answers.
        log_normaliser: log-sum-exp of the logits of the whole vocabulary, float32 [rows].
        top_token: the vocabulary's token with the largest logit, int32 [rows].
        spelling_logits: as `logits`, but the log-sum-exp over all spellings of an option; None
            where the model family names none.
        letter_logits: of A to D, float32 [rows, 4]; None where options are not letters.
        short: the answers, where they are short texts.
        kept_patches: int16 for each row, the patches that are left as they are after the last stage
            inside the decoder; None where tokens are dropped before it.
        merged_patches: int16 for each row, the patches within merged tokens that are left; None
            where none are merged.
    """

    n_visual: np.ndarray
    coverage: np.ndarray
    budget_tokens: int | None
    tokens_per_layer: float
    distinct: int
    logits: list[np.ndarray] = field(default_factory=list)
    log_normaliser: np.ndarray | None = None
    top_token: np.ndarray | None = None
    spelling_logits: list[np.ndarray] | None = None
    letter_logits: np.ndarray | None = None
    short: ShortAnswers | None = None
    kept_patches: list[np.ndarray] | None = None
    merged_patches: list[np.ndarray] | None = None


def patches_per_row(parts: Sequence[HeldPart], repeat: np.ndarray) -> dict[str, Any]:
    """Return which patches are left per row of the data set, as `Answers` has them.

    Args:
        parts: what is left inside the decoder, by micro-batch.
        repeat: the distinct question of each row of the data set.
    """
    kept: dict[int, np.ndarray] = {}
    merged: dict[int, np.ndarray] = {}
    for questions, patches, masks in parts:
        rows = patches.cpu().numpy()
        kept |= {at: np.sort(row[row >= 0]) for at, row in zip(questions, rows, strict=True)}
        if masks is not None:
            pairs = zip(questions, masks.cpu().numpy(), strict=True)
            merged |= {at: np.flatnonzero(mask).astype(np.int16) for at, mask in pairs}
    none = np.empty(0, np.int16)  # of images so small that nothing was merged
    return {
        "kept_patches": [kept[at] for at in repeat] if kept else None,
        "merged_patches": [merged.get(at, none) for at in repeat] if merged else None,
    }
