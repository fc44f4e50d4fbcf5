"""SparseVLM: drop visual tokens in three stages, by the attention of the text tokens that matter.

arXiv 2410.04417; followed: `LlamaDynamicvitModel.forward` of Gumpest/SparseVLMs 26a5f48.

Raters are selected once, from the embeddings: text tokens after the image whose share of a softmax
over the text, averaged over the visual tokens, is above the mean. After layers 2, 6 and 15 (of 32,
scaled with the depth) a visual token's score is the raters' attention in that layer, mean over
heads and raters. v1.x recycles: of the dropped tokens the int(0.3 n) + 1 best are clustered by
density peaks, the clusters' means follow the kept tokens, and positions are renumbered. `plus`
(the code's 2_0) divides attention by the inner product of rotated vectors of ones, takes the 14
heads in which raters look at the image most, and merges nothing.

Where paper and code differ: the paper's number of tokens adapts to the rank of the attention; the
code has fixed counts for 192, 128, 96 and 64 "equivalent" tokens, which are followed at the
official size and interpolated elsewhere. These count what leaves a layer; more tokens enter (206.5
a layer for "192"). A budget here is what enters the layers after the last stage: 113, 39, 27 and 18
of 576 for the official settings, with `plus` 118, 60, 28 and 20. The official code adds noise to
densities, which decides between two clusters; here it adds none, and the lowest index wins a tie.
If no text token is above the mean (a text of one token), all are raters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from prunecal.core.errors import PrunecalError
from prunecal.core.parameters import Parameters
from prunecal.engine.interfaces import Reduction, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from prunecal.engine.batch import Batch
    from prunecal.engine.stages import Seen

LABEL = "SparseVLM"
PRUNES = "inside_llm"
MERGES = True
OFFICIAL_DEPTH, OFFICIAL_TOKENS = 32, 576
CUTS = (3, 7, 16)  # layers 2, 6 and 15 are looked at, of the official depth
# tokens kept by the first two stages, by those left in the end; of OFFICIAL_TOKENS
COUNTS = {0: (0, 0), 18: (66, 30), 27: (238, 48), 39: (303, 110), 113: (300, 200), 576: (576, 576)}
PLUS = {0: (0, 0), 20: (66, 34), 28: (246, 54), 60: (238, 108), 118: (300, 200), 576: (576, 576)}
HEADS = 14  # whose attention `plus` reads
CHUNK = 32  # questions whose tokens are clustered at a time


class Params(Parameters):
    """Settings of SparseVLM."""

    plus: bool = Field(default=False, description="the code's second version, which merges nothing")

    @property
    def positions(self) -> str:
        """Whether positions are renumbered, as the version has it."""
        return "original" if self.plus else "compact"


def stages(visual_tokens: int, budget: float, depth: int, params: Params) -> list[Stage]:
    """Cut after the layers that are looked at; the last stage leaves exactly the budget.

    Raises:
        PrunecalError: the decoder has fewer than four layers.
    """
    if depth <= len(CUTS):
        raise PrunecalError(f"sparsevlm: its three stages do not fit a decoder of {depth} layers")
    cuts: list[int] = []
    for number, cut in enumerate(CUTS):
        after = cuts[-1] + 1 if cuts else 1
        cuts.append(min(max(after, cut * depth // OFFICIAL_DEPTH), depth - len(CUTS) + number))
    first, second = _interpolated(PLUS if params.plus else COUNTS, budget, visual_tokens)
    result, entering = [], visual_tokens
    left = round(budget)  # where budgets are matched, earlier stages follow a share of a token
    for cut, count in zip(cuts, (first, second, None), strict=True):
        if count is None:
            stage = _leaving(cut, left, entering, params)
        else:
            stage = _keeping(cut, min(max(count, left), entering), entering, params)
        result.append(stage)
        entering = stage.entering
    return result


def _interpolated(
    table: dict[int, tuple[int, int]], budget: float, visual_tokens: int
) -> tuple[int, int]:
    """Return the counts of the first two stages, linear between the official settings."""
    wanted = budget * OFFICIAL_TOKENS / visual_tokens
    low = max(key for key in table if key <= wanted)
    high = min(key for key in table if key >= wanted)
    share = (wanted - low) / (high - low) if high > low else 0.0
    scale = visual_tokens / OFFICIAL_TOKENS
    pairs = zip(table[low], table[high], strict=True)
    first, second = (round(scale * (a + share * (b - a))) for a, b in pairs)
    return first, second


def _clusters(dropped: int) -> int:
    return (int(dropped * 0.3) + 1) // 10 + 1


def _keeping(cut: int, count: int, entering: int, params: Params) -> Stage:
    """Return the stage that keeps a number of tokens and adds what it merges."""
    merged = 0 if params.plus or count == entering else _clusters(entering - count)
    return Stage(cut - 1, cut, count, min(merged, entering - count))


def _leaving(cut: int, budget: int, entering: int, params: Params) -> Stage:
    """Return the stage that leaves exactly the budget, merging unless that needs more tokens."""
    for count in range(budget, 0, -1):
        stage = _keeping(cut, count, entering, params)
        if stage.entering == budget:
            return stage
    return Stage(cut - 1, cut, budget)


def queries(batch: Batch, params: Params) -> Tensor:
    """Return each question's raters, bool [Q, L]."""
    import torch

    columns, real = batch.text()
    states = batch.rows.states.float()
    visual, text = states[:, : batch.visual], states[:, batch.visual :]
    every = visual @ text.transpose(1, 2)  # [B, V, T]
    raters = []
    for row, own, mask in zip(batch.question_row.tolist(), columns, real, strict=True):
        products = every[row][:, own - batch.visual].masked_fill(~mask, -torch.inf)
        share = products.softmax(dim=1).mean(dim=0)
        above = mask & (share > share[mask].mean())
        raters.append(above if bool(above.any()) else mask)
    return torch.stack(raters)


def select(seen: Seen, stage: Stage, params: Params) -> Reduction:
    """Keep the tokens that raters attend to most; cluster the best of the others."""
    from prunecal.engine.stages import best

    scores = _plus_scores(seen, stage.look) if params.plus else seen.scores()
    kept = best(scores, stage.keep)
    if not stage.merge:
        return Reduction(kept)
    order = scores.argsort(dim=1, descending=True, stable=True)
    count = int((seen.batch.visual - stage.keep) * 0.3) + 1
    candidates = order[:, stage.keep : stage.keep + count]
    return Reduction(kept, _merged(seen, candidates, stage.merge))


def _plus_scores(seen: Seen, layer: int) -> Tensor:
    """Return attention without the effect of distance, of the heads that look at the image."""
    import torch

    batch, asking = seen.batch, seen.asking
    columns = batch.text()[0].gather(1, seen.queries)
    ones = seen.decoder.rotated_ones(batch.rows, layer)  # [B, T, d]
    from_raters, to_visual = ones[batch.question_row[:, None], columns], ones[:, : batch.visual]
    products = from_raters @ to_visual[batch.question_row].transpose(1, 2)
    products *= ones.shape[-1] ** -0.5
    attention = seen.attention / products[:, None] * asking[:, None, :, None]
    heads = min(HEADS, attention.shape[1])
    by_mass = attention.sum(dim=(2, 3)).argsort(dim=1, descending=True, stable=True)[:, :heads]
    index = by_mass[:, :, None, None].expand(-1, -1, *attention.shape[2:])
    looking = attention.gather(1, index).sum(dim=2) / asking.sum(dim=1)[:, None, None]
    return torch.mean(looking, dim=1)


def _merged(seen: Seen, candidates: Tensor, clusters: int) -> Tensor:
    """Return the weights [Q, M, V] of the candidates [Q, C] in the means of their clusters."""
    import torch

    rows, row = seen.batch.rows, seen.batch.question_row[:, None]
    weights = rows.states.new_zeros(
        len(candidates), clusters, seen.batch.visual, dtype=torch.float32
    )
    for start in range(0, len(candidates), CHUNK):
        part = slice(start, start + CHUNK)
        states = rows.states[row[part], candidates[part]].double()
        cluster = density_peaks(states, clusters)
        one_hot = torch.nn.functional.one_hot(cluster, clusters).transpose(1, 2).double()
        share = one_hot / (one_hot.sum(dim=2, keepdim=True) + 1e-6)
        index = candidates[part][:, None].expand(-1, clusters, -1)
        weights[part].scatter_(2, index, share.float())
    return weights


def density_peaks(states: Tensor, clusters: int) -> Tensor:
    """Cluster tokens by density peaks, as the official `cluster_and_merge` without its noise.

    Args:
        states: [Q, C, H].
        clusters: number of clusters.

    Returns:
        int64 [Q, C], each token's cluster, that of the best centre first.
    """
    import torch

    distance = torch.cdist(states, states) / states.shape[2] ** 0.5
    nearest = distance.topk(clusters, dim=2, largest=False).values
    density = (-(nearest**2).mean(dim=2)).exp()
    denser = density[:, None, :] > density[:, :, None]
    largest = distance.amax(dim=(1, 2), keepdim=True)
    gap = torch.where(denser, distance, largest).amin(dim=2)
    centres = (gap * density).argsort(dim=1, descending=True, stable=True)[:, :clusters]
    to_centres = distance.gather(1, centres[:, :, None].expand(-1, -1, distance.shape[2]))
    nearest_centre = to_centres.argmin(dim=1)
    numbers = torch.arange(clusters, device=centres.device).expand_as(centres)
    return nearest_centre.scatter(1, centres, numbers)


def explicit(
    visual_tokens: int,
    depth: int,
    layers: Sequence[int],
    counts: Sequence[int],
    plus: bool = False,
) -> tuple[list[Stage], Params]:
    """Return stages and settings from the official pruning layers and retained tokens."""
    params, result, entering = Params(plus=plus), [], visual_tokens
    for layer, count in zip(layers, counts, strict=True):
        result.append(_keeping(layer + 1, min(count, entering - 1), entering, params))
        entering = result[-1].entering
    return result, params
