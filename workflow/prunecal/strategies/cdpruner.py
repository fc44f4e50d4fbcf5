"""CDPruner: a determinantal point process over tokens, weighted by relevance to the question.

arXiv 2506.10967; followed: Theia-4869/CDPruner 9541616. Relevance is the mean over the question's
text segments of the negative cosine of CLIP's projected patches and text (the author: deliberate,
found for CLIP in LLaVA), scaled to (value - min + 1e-6) / (max - min). Tokens are selected greedily
for the largest determinant of the kernel relevance_i cos(i, j) relevance_j (incremental Cholesky).

The text is the question without the sentence on the answer's form, in segments of 77 tokens. With
`space` "projected" the similarity is between projected tokens, as in the official code; by default
between the vision tower's features, as for every strategy of this kind.

Where code and this file differ: the official minimum and maximum are over the whole batch, here
over each image; it has no guard when the budget exceeds the rank of the features, and repeats
tokens then, here the lowest tokens that are left follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.engine.coverage import directions
from prunecal.engine.similarity import double_similarity
from prunecal.strategies._vision import SpaceParams, without_projected

if TYPE_CHECKING:
    from torch import Tensor

    from prunecal.engine.interfaces import Signal
    from prunecal.strategies import Images

LABEL = "CDPruner"
PRUNES = "before_llm"
PER = "question"
READS: dict[str, Signal] = {
    "image_embeds": "image_embeds",
    "text_embeds": "text_segments",
    "similarity": "projected_similarity",
}
EXHAUSTED = 1e-10  # a gain below it is the round-off of an exhausted rank


class Params(SpaceParams):
    """Settings of CDPruner."""


def reads(params: Params) -> dict[str, Signal]:
    """Return what is read: the similarity of projected tokens only in their space."""
    return without_projected(READS, params)


def rank(images: Images, budget: int, params: Params) -> Tensor:
    """Order tokens by their gain of determinant, largest first.

    Args:
        images: B images; `text_embeds` is [M, C], segments of one text for all of them, or
            [B, M, C], zero behind the last segment of each text; `similarity` float32 [B, N, N], if
            the space is "projected".
        budget: tokens to select, 1 to N.
        params: its settings.

    Returns:
        int64 [B, budget] in order of selection.
    """
    import torch

    text = images.signals["text_embeds"].double()
    text = text.expand(len(images.features), *text.shape[-2:])
    segments = (text != 0).any(dim=2).sum(dim=1)
    patches = images.signals["image_embeds"].double()
    relevance = -(directions(patches) @ directions(text).transpose(1, 2)).sum(dim=2)
    relevance /= segments[:, None]
    low, high = relevance.amin(1, keepdim=True), relevance.amax(1, keepdim=True)
    relevance = (relevance - low + 1e-6) / (high - low).clamp(min=torch.finfo().tiny)
    projected = params.space == "projected"
    rows = images.signals["similarity"] if projected else images.features
    order, similarity = [], None
    for tokens, own in zip(rows, relevance, strict=True):
        if similarity is None or rows.stride(0):  # 0: questions about one image
            similarity = tokens.double() if projected else double_similarity(tokens)
        order.append(_greedy(similarity, own, budget))
    return torch.stack(order)


def _greedy(similarity: Tensor, relevance: Tensor, budget: int) -> Tensor:
    """Select for the largest determinant of a kernel, greedily (arXiv 1709.05135).

    Args:
        similarity: float64 [N, N], S; the kernel is r_i S_ij r_j.
        relevance: float64 [N], r.
        budget: tokens to select.
    """
    import torch

    gains = relevance * similarity.diagonal() * relevance  # -inf once a token is selected
    floor = EXHAUSTED * float(gains.max())
    factors = similarity.new_zeros(budget, len(gains))
    order: list[int] = []
    for step in range(budget):
        largest, place = gains.max(dim=0)  # the first of several
        if float(largest) <= floor:
            break
        token = int(place)
        row = relevance[token] * similarity[token] * relevance
        row -= factors[:step, token] @ factors[:step]
        torch.div(row, largest.sqrt(), out=factors[step])
        gains -= factors[step].square()
        gains[token] = -torch.inf
        order.append(token)
    rest = gains.isfinite().nonzero().flatten()[: budget - len(order)]
    return torch.tensor(order + rest.tolist(), device=similarity.device)
