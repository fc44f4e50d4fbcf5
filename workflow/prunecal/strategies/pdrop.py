"""PyramidDrop: drop visual tokens in stages, each by the attention of the layer at its cut.

arXiv 2410.17247; followed: `pdrop_forward` of Cooperx521/PyramidDrop 6444f30. After a quarter, half
and three quarters of the layers (8, 16 and 24 of 32) the queries and keys of the layer at the cut
are computed on the states that enter it; kept are the tokens that the last prompt token attends to
most, mean over heads, in raster order, and positions are renumbered. (FastV takes the attention of
the layer before its cut.)

The official ratios, 0.5, 0.25 and 0.125 of all tokens, are powers of one half; here stage i of S
keeps int(N (K / N)^(i / S)) tokens, which are the official numbers at the official budget of an
eighth of the tokens. The paper scores by the last token of the instruction; the code, followed
here, by the last token of the whole prompt. The official code decodes on with a cache; only the
first answer token is read here. The paper also compares at 192, 128 and 64 tokens a layer, by
layers that neither it nor the repository (issue 10) states; behind the official first stage no
fewer than 144 are possible, and `layer` sets an earlier one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from prunecal.core.errors import PrunecalError
from prunecal.core.parameters import Parameters
from prunecal.engine.interfaces import Reduction, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecal.engine.stages import Seen

LABEL = "PyramidDrop"
PRUNES = "inside_llm"
OFFICIAL_DEPTH = 32  # of the decoder whose layers the settings count


class Params(Parameters):
    """Settings of PyramidDrop."""

    cuts: int = Field(3, ge=1, description="stages, at equal distances over the decoder's depth")
    layer: int | None = Field(
        None,
        ge=1,
        lt=OFFICIAL_DEPTH,
        description="layers of 32 that see every visual token, scaled with the decoder's depth; if "
        "not given, as many as lie between two stages",
    )
    positions: Literal["compact", "original"] = Field(
        "compact",
        description="position ids after each stage: renumbered, or as in the unpruned prompt",
    )


def stages(visual_tokens: int, budget: float, depth: int, params: Params) -> list[Stage]:
    """Cut at equal distances, by equal shares.

    Raises:
        PrunecalError: the decoder has fewer layers than stages and one more, or too few behind the
            first stage.
    """
    first = depth / (params.cuts + 1)
    if params.layer is not None:
        first = max(1, params.layer * depth // OFFICIAL_DEPTH)
    if params.cuts >= depth or depth - first < params.cuts:
        raise PrunecalError(
            f"pdrop: {params.cuts} cuts do not fit a decoder of {depth} layers; set `cuts` or "
            "`layer` lower"
        )
    result = []
    for number in range(1, params.cuts + 1):
        # whole numbers for the official distances, which a float may lie just below
        layer = int(first + (depth - first) * (number - 1) / params.cuts + 1e-9)
        share = (budget / visual_tokens) ** (number / params.cuts)
        # an exact product may lie just below the whole number that it stands for
        keep = max(round(budget), int(visual_tokens * share + 1e-9))
        result.append(Stage(layer, layer, round(budget) if number == params.cuts else keep))
    return result


def select(seen: Seen, stage: Stage, params: Params) -> Reduction:
    """Keep the tokens that the last prompt token attends to most, mean over heads."""
    from prunecal.engine.stages import best

    return Reduction(best(seen.scores(), stage.keep))


def explicit(
    visual_tokens: int, depth: int, layers: Sequence[int], ratios: Sequence[float]
) -> tuple[list[Stage], Params]:
    """Return stages and settings from the official `layer_list` and `image_token_ratio_list`."""
    pairs = zip(layers, ratios, strict=True)
    return [Stage(layer, layer, int(visual_tokens * ratio)) for layer, ratio in pairs], Params()
