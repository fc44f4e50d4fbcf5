"""DART: keep a few pivots and the visual tokens that are least like them.

arXiv 2502.11494; followed: the model class of ZichenWen1/DART 5a19452 (found in the history of a
fork, under its author's name). Before layer `layer` (2 of 32, scaled with the depth) image pivots
are the visual tokens whose keys in the layer before have the largest L1 norm, text pivots the
tokens after the image likewise; similarity is the cosine of the states that enter the layer, after
the final norm. Each pivot in turn takes the tokens least similar to it that are still free. Kept
tokens stay in raster order, at their original positions.

Where paper and code differ: the code's `reduction_ratio` is ignored whenever `max_num_trunction` is
given, and that keeps more tokens than it says (128 keeps 4 + 8 * 16 = 132). Here exactly K are
kept: pivots take (K - image pivots) / pivots each, the first ones one more if that leaves a rest,
which is the official number at 68, 132 and 196. The official order of pivots is that of a Python
set, so it is arbitrary; here pivots go by ascending position.
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

    from prunecal.engine.stages import Seen

LABEL = "DART"
PRUNES = "inside_llm"
LOOKS = "keys"
OFFICIAL_DEPTH = 32  # of the decoder whose layers the settings count


class Params(Parameters):
    """Settings of DART."""

    layer: int = Field(
        2,
        ge=1,
        lt=OFFICIAL_DEPTH,
        description="layers of 32 that see every visual token; scaled with the decoder's depth",
        json_schema_extra={"named": True},
    )
    image_pivots: int = Field(4, ge=1, description="visual tokens that are pivots")
    text_pivots: int = Field(4, ge=0, description="text tokens that are pivots")


class Explicit(Params):
    """Settings with an order of pivots, as a Python set of the official code gave it."""

    order: tuple[tuple[str, int], ...] | None = None


def stages(visual_tokens: int, budget: float, depth: int, params: Params) -> list[Stage]:
    """Look at the layer before the cut.

    Raises:
        PrunecalError: the decoder has a single layer.
    """
    if depth < 2:  # noqa: PLR2004  one layer looks, one runs on fewer tokens
        raise PrunecalError("dart: the decoder has a single layer; use a strategy that ranks")
    layer = max(1, params.layer * depth // OFFICIAL_DEPTH)
    return [Stage(layer - 1, layer, round(budget))]


def select(seen: Seen, stage: Stage, params: Params) -> Reduction:
    """Keep the image pivots and, for each pivot in turn, what is least like it."""
    import torch

    batch, row = seen.batch, seen.batch.question_row
    visual, budget = batch.visual, stage.keep
    norms = seen.keys.float().abs().sum(dim=(1, 3))  # [B, T]
    count = min(params.image_pivots, budget)
    by_norm = norms[:, :visual].argsort(dim=1, descending=True, stable=True)
    image_pivots = by_norm[row, :count]
    columns, real = batch.text()
    of_text = norms[row[:, None], columns].masked_fill(~real, -torch.inf)
    text = of_text.argsort(dim=1, descending=True, stable=True)
    # a text shorter than that repeats its last pivot
    places = torch.arange(params.text_pivots, device=text.device)
    text = text.gather(1, places.minimum(real.sum(dim=1, keepdim=True) - 1))
    pivots = _ordered(image_pivots, columns.gather(1, text), visual, params)
    similarity = _similarity(seen, pivots)
    free = torch.ones(similarity.shape[0], visual, dtype=torch.bool, device=pivots.device)
    free.scatter_(1, image_pivots, value=False)
    share, rest = divmod(budget - count, pivots.shape[1])
    for number in range(pivots.shape[1]):
        values = similarity[:, number].masked_fill(~free, torch.inf)
        taken = values.argsort(dim=1, stable=True)[:, : share + (number < rest)]
        free.scatter_(1, taken, value=False)
    return Reduction((~free).int().argsort(dim=1, descending=True, stable=True)[:, :budget])


def _ordered(image: Tensor, text: Tensor, visual: int, params: Params) -> Tensor:
    """Return the pivots' columns in the order in which they take tokens, [Q, P]."""
    import torch

    order = getattr(params, "order", None)
    if order is None:
        return torch.cat((image.sort(dim=1).values, text.sort(dim=1).values), dim=1)
    places = [at if kind == "image" else visual + at for kind, at in order]
    return image.new_tensor(places).expand(len(image), -1)


def _similarity(seen: Seen, pivots: Tensor) -> Tensor:
    """Return cosines of the normed states of pivots and visual tokens, [Q, P, V]."""
    import torch

    batch = seen.batch
    normed = torch.nn.functional.normalize(
        seen.decoder.backbone.norm(batch.rows.states).float(), dim=-1
    )
    packed = batch.per_row(pivots)  # [B, A, P]
    index = packed.flatten(1)[..., None].expand(-1, -1, normed.shape[-1])
    products = normed.gather(1, index) @ normed[:, : batch.visual].transpose(1, 2)
    return batch.per_question(products.unflatten(1, packed.shape[1:]))


def explicit(
    visual_tokens: int,
    depth: int,
    layer: int,
    per_pivot: int,
    pivot_image: int,
    pivot_text: int,
    order: Sequence[tuple[str, int]] | None = None,
) -> tuple[list[Stage], Params]:
    """Return stages and settings from the official numbers of pivots and of tokens for each.

    Args:
        visual_tokens: of an image.
        depth: layers of the decoder.
        layer: the first that runs on fewer tokens.
        per_pivot: tokens that each pivot takes.
        pivot_image: image pivots.
        pivot_text: text pivots.
        order: the pivots' kinds ("image" or "text") and places, if not by ascending position.
    """
    listed = None if order is None else tuple((str(kind), int(at)) for kind, at in order)
    params = Explicit(image_pivots=pivot_image, text_pivots=pivot_text, order=listed)
    keep = pivot_image + per_pivot * (pivot_image + pivot_text)
    return [Stage(layer - 1, layer, keep)], params
