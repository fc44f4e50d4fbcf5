"""VisionZip: the tokens that CLS attends to most, and the others merged into a few by their keys.

arXiv 2412.04467; followed: dvlab-research/VisionZip 3151f6d. Dominant tokens are CLS, which counts,
and the patches of the largest attention, in raster order. Of the others every so many becomes a
target, and each of the rest goes to the target whose key (mean over heads, without its scale) is
most similar, the lowest of a tie. A contextual token is the target plus the mean of what went to
it: a sum of about twice a patch's norm, not the average of the paper. Merged are features before
the projector, so every image needs the state of CLS and the keys of the feature layer.

The official splits are 54 + 10 of 64 and 191 + 30 of 221; others are scaled from the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from prunecal.core.errors import PrunecalError
from prunecal.core.parameters import Parameters
from prunecal.engine.coverage import directions

if TYPE_CHECKING:
    from torch import Tensor

    from prunecal.engine.interfaces import Signal
    from prunecal.strategies import Images

LABEL = "VisionZip"
PRUNES = "before_llm"
READS: dict[str, Signal] = {"cls": "cls", "keys": "keys"}
OFFICIAL = (10, 64)  # contextual tokens, of all


class Params(Parameters):
    """Settings of VisionZip."""

    contextual: int | None = Field(
        None, ge=0, description="merged tokens; if not given, 10 of 64 of the budget"
    )


def merge(images: Images, budget: int, params: Params) -> Tensor:
    """Return the weights [B, budget, N + 1]: CLS, patches in raster order, contextual tokens.

    Raises:
        PrunecalError: more contextual tokens than the budget or the patches allow.
    """
    import torch

    share, of = OFFICIAL
    contextual = params.contextual
    if contextual is None:
        contextual = min(budget - 1, max(1, round(budget * share / of)))
    dominant, sources = budget - contextual, images.features.shape[1] + 1
    if not 1 <= dominant <= sources - contextual:
        raise PrunecalError(
            f"visionzip: {contextual} contextual tokens do not fit a budget of {budget} and "
            f"{sources - 1} patches; set `contextual` lower"
        )
    weights = images.features.new_zeros(len(images.features), budget, sources)
    order = images.saliency.argsort(dim=1, descending=True, stable=True)[:, : dominant - 1]
    for image, top in enumerate(order.sort(dim=1).values + 1):
        weights[image, 0, 0] = 1
        weights[image, torch.arange(1, dominant), top] = 1
        left = torch.ones(sources, dtype=torch.bool)
        left[0], left[top] = False, False
        if contextual:
            keys = images.signals["keys"][image]
            weights[image, dominant:] = _contextual(keys, left.nonzero().flatten(), contextual)
    return weights


def _contextual(keys: Tensor, left: Tensor, count: int) -> Tensor:
    """Return the weights [count, N + 1] of sources in the tokens that merge those in `left`."""
    import torch

    step = max(1, len(left) // count)
    targets = left[torch.arange(count) * step]
    others = left[~torch.isin(left, targets)]
    unit = directions(keys.double())
    likeness = ((unit[others] @ unit[targets].T) * 2.0**40).round()  # copies of a token tie
    to = likeness.argmax(dim=1)
    weights = keys.new_zeros(count, len(keys))
    weights[to, others] = (1 / torch.bincount(to, minlength=count).clamp(min=1)).to(keys)[to]
    weights[torch.arange(count), targets] = 1
    return weights
