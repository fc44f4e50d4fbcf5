"""DivPrune: tokens as far apart from each other as possible (arXiv 2503.02175).

The official code (vbdi/divprune 799e2d9) measures distances between projected embeddings, in
float16, and keeps round(0.098 * 576) = 56 tokens; Table 1 of the paper was made with tokens left in
the order of selection, which the code sorts since (its issue 8). With `space` "projected" distances
are between projected embeddings here, too, in float32; by default between the vision tower's
features, as for every strategy of this kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.engine.similarity import UNIT, exact_similarity
from prunecal.strategies._vision import SpaceParams, without_projected

if TYPE_CHECKING:
    from torch import Tensor

    from prunecal.engine.interfaces import Signal
    from prunecal.strategies import Images

LABEL = "DivPrune"
PRUNES = "before_llm"
READS: dict[str, Signal] = {"similarity": "projected_similarity"}


class Params(SpaceParams):
    """Settings of DivPrune."""


def reads(params: Params) -> dict[str, Signal]:
    """Return what is read: the similarity of projected tokens only in their space."""
    return without_projected(READS, params)


def rank(images: Images, budget: int, params: Params) -> Tensor:
    """Order tokens by their cosine distance to the closest token selected so far, largest first.

    The first token is the one farthest from its nearest neighbour; ties go to the lowest index, on
    every machine: similarities are exact (two tokens nearest to each other tie at the start).
    Where only copies of selected tokens are left, the official code selects one of its tokens
    again; here the lowest unselected index follows, so that K tokens are always K.

    Args:
        images: B images of N tokens; `similarity` [B, N, N], cosines in multiples of 1 / `UNIT`,
            if the space is "projected".
        budget: tokens to select, 1 to N.
        params: its settings.

    Returns:
        int64 [B, budget] in order of selection.
    """
    import torch

    if params.space == "projected":
        similarity = (images.signals["similarity"] * UNIT).round().int()
    else:
        similarity = exact_similarity(images.features)
    B, N, _ = similarity.shape
    every = torch.arange(B, device=similarity.device)
    # the most similar token is the token itself, the second its nearest neighbour
    closest = similarity.topk(min(2, N), dim=-1).values[:, :, -1]
    taken = torch.zeros(B, N, dtype=torch.bool, device=similarity.device)
    order = []
    for step in range(budget):
        selected = (UNIT - closest).masked_fill(taken, -1).argmax(dim=1)
        order.append(selected)
        taken[every, selected] = True
        to_selected = similarity[every, selected]
        closest = to_selected if step == 0 else torch.maximum(closest, to_selected)
    return torch.stack(order, dim=1)
