"""PruMerge: the patches that CLS attends to in the last layer, each with its most similar ones.

arXiv 2403.15388; followed: 42Shawn/LLaVA-PruMerge 097c041. Attention is that of CLS in the tower's
last layer, from queries and keys that are not parted into heads. A kept token is the patch plus its
32 most similar ones by key, kept ones among them, each times its attention; the last token is the
sum of all dropped ones times their attention. The paper averages with weights that sum to 1; the
code has that division commented out. Order: falling attention.

The official number of tokens is that of the outliers of the attention (Tukey), another for each
image: a budget of None, outside studies. `plus`, which adds patches at equal distances, sets its
own number too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from prunecal.core.errors import PrunecalError
from prunecal.core.parameters import Parameters
from prunecal.engine.coverage import directions

if TYPE_CHECKING:
    from torch import Tensor

    from prunecal.engine.interfaces import Signal
    from prunecal.strategies import Images

LABEL = "PruMerge"
PRUNES = "before_llm"
READS: dict[str, Signal] = {"cls_queries": "last_cls_query", "keys": "last_keys"}
NEIGHBOURS = 32


class Params(Parameters):
    """Settings of PruMerge."""

    plus: bool = Field(
        default=False, description="add patches at equal distances; needs a budget of its own"
    )


def merge(images: Images, budget: int | None, params: Params) -> Any:
    """Return the weights [B, budget, N + 1]; a list of [K, N + 1] if the budget is None.

    Raises:
        PrunecalError: `plus` with a budget.
    """
    import torch

    if params.plus and budget is not None:
        raise PrunecalError("prumerge: `plus` sets its own number of tokens; give no budget")
    queries, keys = images.signals["cls_queries"].double(), images.signals["keys"].double()
    products = (queries @ keys.transpose(1, 2))[:, 0] / keys.shape[2] ** 0.5
    attention = products.softmax(dim=1)[:, 1:]
    weights = [
        _weights(own, directions(key[1:]), _kept(own, budget, plus=params.plus)).float()
        for own, key in zip(attention, keys, strict=True)
    ]
    return weights if budget is None else torch.stack(weights)


def _kept(attention: Tensor, budget: int | None, *, plus: bool) -> Tensor:
    """Return the patches that are kept, by falling attention, then those at equal distances."""
    import torch

    tokens = len(attention)
    ratio = 0.0
    if budget is not None:
        count = budget - 1
    else:
        low, high = attention.quantile(attention.new_tensor([0.25, 0.75])).tolist()
        ratio = int((attention > high + 1.5 * (high - low)).sum()) / tokens
        count = int(tokens * ratio)
    kept = attention.argsort(descending=True, stable=True)[:count]
    if plus:
        step = int(int(1 / ratio) / 3)
        if not step:
            raise PrunecalError("prumerge: `plus` is undefined above a third of outliers")
        places = torch.arange(0, tokens - 1, step, device=kept.device)
        kept = torch.cat((kept, places[~torch.isin(places, kept)]))
    return kept


def _weights(attention: Tensor, unit: Tensor, kept: Tensor) -> Tensor:
    """Return the weights [K + 1, N + 1] of the kept patches' tokens, and of the rest's."""
    import torch

    tokens = len(attention)
    likeness = (unit[kept] @ unit.T).scatter(1, kept[:, None], -torch.inf)
    near = likeness.argsort(dim=1, descending=True, stable=True)[:, : min(NEIGHBOURS, tokens - 1)]
    weights = attention.new_zeros(len(kept) + 1, tokens + 1)
    weights[:-1].scatter_(1, near + 1, attention[near])
    weights[torch.arange(len(kept)), kept + 1] = 1
    weights[-1, 1:] = attention.index_fill(0, kept, 0)
    return weights
