"""TRIM: the patches that CLIP finds least like the question, and the mean of all others.

arXiv 2409.10994; followed: FreedomIntelligence/TRIM f5a232d. A patch's score is minus the product
of its projected CLIP embedding with the text's, neither normalised (the paper's similarity is a
cosine); kept are the K - 1 best in raster order, and one token is the mean of the dropped ones. The
official code takes a softmax of the scores, which changes no order, and its own number of tokens
(Tukey outliers over the batch) if asked; here the number is the budget.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.core.parameters import Parameters

if TYPE_CHECKING:
    from torch import Tensor

    from prunecal.engine.interfaces import Signal
    from prunecal.strategies import Images

LABEL = "TRIM"
PRUNES = "before_llm"
PER = "question"
READS: dict[str, Signal] = {"image_embeds": "image_embeds", "text_embeds": "text_embeds"}


class Params(Parameters):
    """TRIM has no parameters of its own."""


def merge(images: Images, budget: int, params: Params) -> Tensor:
    """Return the weights [B, budget, N + 1]: patches in raster order, then the mean of the rest.

    `text_embeds` is [B, C], a text for each image.
    """
    import torch

    text = images.signals["text_embeds"].double()
    scores = -(images.signals["image_embeds"].double() @ text[:, :, None])[:, :, 0]
    order = scores.argsort(dim=1, descending=True, stable=True)
    kept = order[:, : budget - 1].sort(dim=1).values + 1
    weights = images.features.new_zeros(*order.shape[:1], budget, order.shape[1] + 1)
    weights[:, :-1].scatter_(2, kept[:, :, None], 1)
    rest = order[:, budget - 1 :] + 1
    weights[:, -1].scatter_(1, rest, torch.full(rest.shape, 1 / rest.shape[1]).to(weights))
    return weights
