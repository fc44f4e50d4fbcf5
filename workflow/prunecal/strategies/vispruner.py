"""VisPruner: some tokens by attention, the others as different from each other as possible.

arXiv 2412.01818; followed: Theia-4869/VisPruner aefa01a. A share of the budget goes to the tokens
that CLS attends to most. The rest, in the order of attention, is thinned until it fits: it is
parted into its even and its odd places, the even tokens are put in falling order of their largest
cosine to an odd one, the first of them (at most eight at a time) are dropped, and the odd ones
follow.

Where the official code is undefined: it fails whenever an odd number of tokens is to be thinned;
here the even places are then one more. If the share leaves nothing for the rest, there is none. Its
result in half precision, and for 576 tokens now and then in float32, hangs on round-off; here
cosines are float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from prunecal.engine.similarity import double_similarity
from prunecal.strategies._vision import VisionParams

if TYPE_CHECKING:
    from torch import Tensor

    from prunecal.strategies import Images

LABEL = "VisPruner"
PRUNES = "before_llm"
NESTED = False
DROPPED = 8  # tokens at a time, at most


class Params(VisionParams):
    """Settings of VisPruner."""

    important_ratio: float = Field(
        0.5, ge=0, le=1, description="share of the budget that goes by attention alone"
    )


def rank(images: Images, budget: int, params: Params) -> Tensor:
    """Return the tokens kept by attention, then the diverse ones: int64 [B, budget]."""
    import torch

    important = int(budget * params.important_ratio)
    order = images.saliency.argsort(dim=1, descending=True, stable=True)
    rest = [
        _thinned(double_similarity(features), tokens, budget - important)
        for features, tokens in zip(images.features, order[:, important:], strict=True)
    ]
    return torch.cat((order[:, :important], torch.stack(rest)), dim=1)


def _thinned(similarity: Tensor, tokens: Tensor, count: int) -> Tensor:
    """Drop tokens that are like others until `count` are left."""
    import torch

    if not count:
        return tokens[:0]
    while len(tokens) > count:
        even, odd = tokens[::2], tokens[1::2]
        likeness = similarity[even][:, odd].amax(dim=1)
        even = even[likeness.argsort(descending=True, stable=True)]
        tokens = torch.cat((even[min(DROPPED, len(tokens) - count, len(even)) :], odd))
    return tokens
