"""SCOPE: greedy coverage of an image's tokens, weighted by their saliency (arXiv 2510.24214)."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from prunecal.core.errors import PrunecalError
from prunecal.engine.similarity import UNIT, exact_similarity
from prunecal.strategies._vision import VisionParams

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from prunecal.strategies import Images

LABEL = "SCOPE"
PRUNES = "before_llm"
CANDIDATES = 4  # gains computed first in each step
ROWS = 512  # gains computed at a time: 512 rows of 576 numbers still fit a core's cache
SUMMED = (2**31 - 1) // UNIT  # gaps of at most 1 whose sum an int32 holds


class Params(VisionParams):
    """Settings of SCOPE."""

    alpha: float = Field(
        1.0,
        ge=0,
        le=20,  # a saliency to a larger power may be 0 in float64
        allow_inf_nan=False,
        description="Saliency weight: a token's gain is multiplied by its saliency to this power; "
        "0 is pure coverage.",
        json_schema_extra={"named": True},
    )
    gap_power: float = Field(
        1.0,
        gt=0,
        le=20,
        allow_inf_nan=False,
        description="Exponent of the coverage gap that a token closes; above 1 favours large gaps.",
    )
    selection_dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="Precision of similarities and gains; half precision, as in the official "
        "scripts, changes the selected sets.",
    )


def rank(images: Images, budget: int, params: Params) -> Tensor:
    """Rank tokens by SCOPE; see `rank_many`."""
    return rank_many(images, budget, [params])[0]


def rank_many(images: Images, budget: int, variants: Sequence[Params]) -> list[Tensor]:
    """Rank tokens by several settings of SCOPE that share the similarities.

    Args:
        images: B images of N tokens, whose saliency is not negative.
        budget: tokens to select, 1 to N.
        variants: settings.

    Returns:
        int64 [B, budget] in order of selection, one per variant.

    Raises:
        PrunecalError: saliency is negative and a variant's alpha is not 0.
    """
    import torch

    if any(params.alpha for params in variants) and bool((images.saliency < 0).any()):
        raise PrunecalError("scope: saliency is negative; give attention weights, or set alpha=0")
    groups: dict[tuple[str, float], list[int]] = {}
    for position, params in enumerate(variants):
        groups.setdefault((params.selection_dtype, params.gap_power), []).append(position)
    saliency = images.saliency.double()
    similarities: dict[str, Tensor] = {}
    orders: dict[int, Tensor] = {}
    for (dtype, gap_power), members in groups.items():
        if dtype not in similarities:
            fixed_point = dtype == "float32"
            similarities[dtype] = exact_similarity(
                images.features, torch.int32 if fixed_point else getattr(torch, dtype)
            )
        # pow in float64, rounded once: the same weights on every device
        weights = torch.cat([saliency ** variants[member].alpha for member in members])
        with _one_thread():
            selected = select_greedily(
                similarities[dtype], weights.to(getattr(torch, dtype)), budget, gap_power
            )
        orders.update(zip(members, selected.split(len(saliency)), strict=True))
    return [orders[position] for position in range(len(variants))]


def select_greedily(similarity: Tensor, weights: Tensor, budget: int, gap_power: float) -> Tensor:
    """Select tokens greedily by weighted coverage gain.

    With S the cosine similarities of an image's tokens and c_i = 0 at first, each step takes the
    token j with the largest gain weight_j · Σ_i max(0, S_ij − c_i)^p, the lowest index on a tie,
    and raises each c_i to S_ij where that is larger; weight_j is the token's saliency to the power
    alpha, p the gap power.

    Ties are structural at p = 1 under equal weights: once two tokens gain from each other alone,
    both gain 1 + S_jk − c_j − c_k. In fixed point these sums are exact, so that the lowest index
    wins wherever the ranking is computed.

    Since c only grows, gains only shrink: a gain computed in an earlier step is an upper bound. So
    a step computes again only the gains at the top until the largest of all is one of them (lazy
    greedy, Minoux 1978), with the same result as computing all.

    Args:
        similarity: S, [B, N, N], from `exact_similarity`.
        weights: [R * B, N], not negative: R sets of weights for the same B images.
        budget: tokens to select, 1 to N.
        gap_power: p, above 0.

    Returns:
        int64 [R * B, budget] in order of selection.
    """
    import torch

    B, N, _ = similarity.shape
    Q = len(weights)
    if similarity.dtype == torch.int32:
        weights = weights.double()
    # Columns of zeros, which no gap ever comes from, so that rows divide into equal parts.
    parts = -(-N // SUMMED)
    width = parts * -(-N // parts)
    rows = similarity.reshape(B * N, N)
    if width > N:
        rows = torch.nn.functional.pad(rows, (0, width - N))
    covered = rows.new_zeros(Q, width)
    bounds = torch.cat([_closed(image.clone(), gap_power, parts) for image in rows.split(N)])
    bounds = bounds.reshape(B, N).repeat(Q // B, 1) * weights

    def compute(tokens: Tensor) -> None:
        """Compute gains again, tokens being flat positions in [Q, N]."""
        for part in tokens.split(ROWS):
            gaps = rows.index_select(0, part % (B * N))
            gaps.sub_(covered.index_select(0, part // N))
            gains = _closed(gaps, gap_power, parts) * weights.take(part)
            # the minimum leaves selected tokens at -inf
            bounds.put_(part, torch.minimum(bounds.take(part), gains))

    starts = torch.arange(0, Q * N, N, device=similarity.device)
    order = torch.empty(Q, budget, dtype=torch.int64, device=similarity.device)
    for step in range(budget):
        first = bounds.topk(min(CANDIDATES, N), sorted=False).indices
        compute((starts[:, None] + first).flatten())
        best = bounds.gather(1, first).amax(dim=1, keepdim=True)
        # Only tokens whose bound reaches the best gain so far can win; a gain of 0 cannot shrink.
        rivals = (bounds >= best) & (bounds > 0)
        rivals.scatter_(1, first, value=False)
        compute(rivals.flatten().nonzero().squeeze(1))
        selected = torch.argmax(bounds, dim=1, out=order[:, step])
        bounds.put_(starts + selected, bounds.new_full((Q,), -torch.inf))
        covered = torch.maximum(covered, rows.index_select(0, (starts + selected) % (B * N)))
    return order


def _closed(gaps: Tensor, gap_power: float, parts: int) -> Tensor:
    """Sum the positive part of gaps [n, width] to the power `gap_power`, in place.

    Returns:
        [n]: the exact sum in units of the fixed point at power 1 and the float64 sum at others
        (gaps int32), or the sum rounded once to the gaps' own half precision.
    """
    import torch

    gaps.clamp_(min=0)
    if gaps.dtype == torch.int32 and gap_power == 1:
        return gaps.unflatten(-1, (parts, -1)).sum(dim=-1, dtype=torch.int32).sum(dim=-1).double()
    if gaps.dtype == torch.int32:
        return (gaps.double() / UNIT).pow_(gap_power).sum(dim=-1)
    if gap_power != 1:
        gaps.pow_(gap_power)
    return gaps.sum(dim=-1, dtype=torch.float64).to(gaps.dtype)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run small kernels on the calling thread alone.

    Selection is thousands of kernels of some 10 microseconds. On two free cores a second thread
    saves a fifth of the time; on a busy machine the wait for it at the end of every kernel makes
    selection several times slower.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
