"""SCOPE: greedy coverage of an image's tokens, weighted by their saliency (arXiv 2510.24214)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from prunecal.errors import PrunecalError
from prunecal.strategies._similarity import cosine_similarity
from prunecal.strategies._vision import VisionStrategy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

LABEL = "SCOPE"
PLACE = "vision"
CANDIDATES = 8  # gains looked at anew per round; measured on 576 tokens, 4 to 16 differ little


class Params(VisionStrategy):
    """Settings of SCOPE."""

    alpha: float = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="Saliency weight: a token's gain is multiplied by its saliency to this power; "
        "0 is pure coverage.",
        json_schema_extra={"named": True},
    )
    gap_power: float = Field(
        1.0,
        gt=0,
        allow_inf_nan=False,
        description="Exponent of the coverage gap that a token closes; above 1 favours large gaps.",
    )
    selection_dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="Precision of similarities and gains; half precision, as in the official "
        "scripts, changes the selected sets.",
    )


def rank(
    features: Tensor, saliency: Tensor, budget: int, params: Params, image_ids: list[str] | None
) -> Tensor:
    """Order tokens by SCOPE; see `rank_many`."""
    del image_ids
    return rank_many(features, saliency, budget, [params])[0]


def rank_many(
    features: Tensor, saliency: Tensor, budget: int, variants: Sequence[Params]
) -> list[Tensor]:
    """Order tokens by several settings of SCOPE that share the similarities.

    Args:
        features: float32 [B, N, D].
        saliency: float32 [B, N], not negative.
        budget: tokens to select, 1 to N.
        variants: settings.

    Returns:
        int64 [B, budget] in order of selection, one per variant.

    Raises:
        PrunecalError: saliency is negative and a variant's alpha is not 0.
    """
    import torch

    if any(params.alpha for params in variants) and bool((saliency < 0).any()):
        raise PrunecalError("scope: saliency is negative; give attention weights, or set alpha=0")
    groups: dict[tuple[str, float], list[int]] = {}
    for position, params in enumerate(variants):
        groups.setdefault((params.selection_dtype, params.gap_power), []).append(position)
    similarities: dict[str, Tensor] = {}
    orders: dict[int, Tensor] = {}
    for (dtype, gap_power), members in groups.items():
        if dtype not in similarities:
            similarities[dtype] = cosine_similarity(features, getattr(torch, dtype))
        # pow in float64, rounded once: the same weights on every device
        weights = torch.cat([saliency.double() ** variants[member].alpha for member in members])
        similarity = similarities[dtype]
        selected = select(similarity, weights.to(similarity.dtype), budget, gap_power)
        orders.update(zip(members, selected.split(len(features)), strict=True))
    return [orders[position] for position in range(len(variants))]


def select(similarity: Tensor, weights: Tensor, budget: int, gap_power: float) -> Tensor:
    """Select tokens greedily by weighted coverage gain.

    Start with c_i = 0. Each step takes the token j with the largest gain
    (sum_i max(0, S_ij - c_i)^p) * weight_j, the lowest index on a tie, and raises each c_i to
    S_ij where that is larger.

    Since c only grows, gains only shrink, and round-to-nearest keeps it so: a gain computed in an
    earlier step is an upper bound. So a step computes anew only the gains at the top until the
    largest of all is one of them (lazy greedy, Minoux 1978), with the same result as computing all.

    Args:
        similarity: S, [B, N, N].
        weights: [R * B, N], not negative: R sets of weights for the same B images.
        budget: tokens to select, 1 to N.
        gap_power: p, above 0.

    Returns:
        int64 [R * B, budget] in order of selection.
    """
    import torch

    B, N, _ = similarity.shape
    Q = len(weights)
    device = similarity.device
    rows = similarity.reshape(B * N, N)
    first_row = (torch.arange(Q, device=device) % B * N)[:, None]
    every = torch.arange(Q, device=device)
    covered = similarity.new_zeros(Q, N)

    def closed(gaps: Tensor) -> Tensor:
        gaps.clamp_(min=0)
        return (gaps if gap_power == 1 else gaps.pow_(gap_power)).sum(dim=-1)

    bounds = torch.stack([closed(image.clone()) for image in similarity])
    bounds = bounds.repeat(Q // B, 1) * weights
    order = torch.empty(Q, budget, dtype=torch.int64, device=device)
    current = torch.empty(Q, N, dtype=torch.bool, device=device)
    for step in range(budget):
        current.fill_(False)
        open_queries = every
        while len(open_queries):
            stale = bounds[open_queries].masked_fill(current[open_queries], -torch.inf)
            tokens = stale.topk(min(CANDIDATES, N), sorted=False).indices
            at = (open_queries[:, None], tokens)
            index = (first_row[open_queries] + tokens).flatten()
            gaps = rows.index_select(0, index).view(*tokens.shape, N)
            gains = closed(gaps.sub_(covered[open_queries][:, None])) * weights[at]
            # the minimum leaves selected tokens at -inf
            bounds[at] = torch.minimum(bounds[at], gains)
            current[at] = True
            best = bounds[open_queries].argmax(dim=-1)
            order[open_queries, step] = best
            open_queries = open_queries[~current[open_queries, best]]
        chosen = order[:, step]
        bounds[every, chosen] = -torch.inf
        covered = torch.maximum(covered, rows[first_row[:, 0] + chosen])
    return order
