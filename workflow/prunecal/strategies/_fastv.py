"""What FastV's variants share: their settings and what they keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from prunecal.core.errors import PrunecalError
from prunecal.core.parameters import Parameters
from prunecal.engine.interfaces import Reduction

if TYPE_CHECKING:
    from prunecal.engine.interfaces import Stage
    from prunecal.engine.stages import Seen


class FastVParams(Parameters):
    """Settings of every variant of FastV."""

    layer: int = Field(
        2,
        ge=1,
        le=1000,
        description="decoder layers that see every visual token (K in the paper)",
        json_schema_extra={"named": True},
    )


def refuse_deep(layer: int, depth: int) -> None:
    """Refuse a `layer` behind which no layer is left.

    Raises:
        PrunecalError: it is not below the model's depth.
    """
    if layer >= depth:
        raise PrunecalError(
            f"fastv: layer {layer} is not below the model's depth of {depth} layers; "
            "choose a smaller `layer`"
        )


def select(seen: Seen, stage: Stage, params: FastVParams) -> Reduction:
    """Keep the tokens that the last prompt token attends to most, mean over heads."""
    from prunecal.engine.stages import best

    return Reduction(best(seen.scores(), stage.keep))
