"""DivPrune: tokens as far apart from each other as possible (arXiv 2503.02175).

The official code (vbdi/divprune 799e2d9) measures distances between projected embeddings; here
they are between the vision tower's features, as for every strategy of this kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.strategies._similarity import cosine_similarity
from prunecal.strategies._vision import VisionStrategy

if TYPE_CHECKING:
    from torch import Tensor

LABEL = "DivPrune"
PLACE = "vision"


class Params(VisionStrategy):
    """DivPrune has no settings of its own."""


def rank(
    features: Tensor, saliency: Tensor, budget: int, params: Params, image_ids: list[str] | None
) -> Tensor:
    """Order tokens by their cosine distance to the closest token selected so far, largest first.

    The first token is the one farthest from its nearest neighbour; ties go to the lowest index.
    Where only copies of selected tokens are left, the official code selects one of its tokens
    again; here the lowest unselected index follows, so that K tokens are always K.

    Args:
        features: float32 [B, N, D].
        saliency: ignored.
        budget: tokens to select, 1 to N.
        params: ignored.
        image_ids: ignored.

    Returns:
        int64 [B, budget] in order of selection.
    """
    del saliency, params, image_ids
    import torch

    similarity = cosine_similarity(features)
    B, N, _ = similarity.shape
    every = torch.arange(B, device=features.device)
    # the most similar token is the token itself, the second its nearest neighbour
    closest = similarity.topk(min(2, N), dim=-1).values[:, :, -1]
    taken = torch.zeros(B, N, dtype=torch.bool, device=features.device)
    order = []
    for step in range(budget):
        chosen = (1 - closest).masked_fill(taken, -torch.inf).argmax(dim=1)
        order.append(chosen)
        taken[every, chosen] = True
        to_chosen = similarity[every, chosen]
        closest = to_chosen if step == 0 else torch.maximum(closest, to_chosen)
    return torch.stack(order, dim=1)
