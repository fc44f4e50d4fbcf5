"""TRIM: the patches that CLIP finds least like the question, and the mean of all others.

arXiv 2409.10994; followed: FreedomIntelligence/TRIM f5a232d. A patch's score is minus the product
of its projected CLIP embedding with the text's, neither normalised (the paper's similarity is a
cosine); kept are the K - 1 best in raster order, and one token is the mean of the dropped ones. The
text is the question as it is asked, with the sentence on the answer's form, cut after 77 tokens.

In studies the number of tokens is the budget. The official code's own number, asked for by a budget
of None, is the share of outliers (Tukey) among the softmax of the scores; there over the whole
batch, here over each image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunecal.core.parameters import Parameters

if TYPE_CHECKING:
    from torch import Tensor

    from prunecal.engine.interfaces import Signal
    from prunecal.strategies import Images

LABEL = "TRIM"
PRUNES = "before_llm"
PER = "question"
READS: dict[str, Signal] = {"image_embeds": "image_embeds", "text_embeds": "text_embeds"}
FENCE = 1.5  # interquartile ranges above the third quartile


class Params(Parameters):
    """TRIM has no parameters of its own."""


def merge(images: Images, budget: int | None, params: Params) -> Any:
    """Return the weights [B, budget, N + 1]: patches in raster order, then the mean of the rest.

    `text_embeds` is [B, C], a text for each image. If the budget is None, a list of [K, N + 1].
    """
    text = images.signals["text_embeds"].double()
    scores = -(images.signals["image_embeds"].double() @ text[:, :, None])[:, :, 0]
    order = scores.argsort(dim=1, descending=True, stable=True)
    if budget is None:
        counts = [_outliers(one) + 1 for one in scores.softmax(dim=1)]
        pairs = zip(order, counts, strict=True)
        return [_weights(row[None], count, images.features)[0] for row, count in pairs]
    return _weights(order, budget, images.features)


def _outliers(shares: Tensor) -> int:
    """Return how many patches of N the share of outliers keeps, rounded as the official code."""
    import torch

    quartiles = torch.quantile(shares, shares.new_tensor([0.25, 0.75]))
    fence = quartiles[1] + FENCE * (quartiles[1] - quartiles[0])
    return int(len(shares) * (int((shares > fence).sum()) / len(shares)))


def _weights(order: Tensor, budget: int, like: Tensor) -> Tensor:
    """Return weights [B, budget, N + 1] from the patches by falling score, [B, N]."""
    import torch

    kept = order[:, : budget - 1].sort(dim=1).values + 1
    weights = like.new_zeros(len(order), budget, order.shape[1] + 1)
    weights[:, :-1].scatter_(2, kept[:, :, None], 1)
    rest = order[:, budget - 1 :] + 1
    weights[:, -1].scatter_(1, rest, torch.full(rest.shape, 1 / rest.shape[1]).to(weights))
    return weights
