"""The settings that strategies share which prune before the language model."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from prunecal.core.parameters import Parameters


class VisionParams(Parameters):
    """Settings of every strategy that drops visual tokens before the language model."""

    positions: Literal["compact", "original"] = Field(
        "compact",
        description="Position ids of the kept tokens: renumbered without gaps (compact) or those "
        "that they have in the unpruned prompt (original).",
    )


class SpaceParams(VisionParams):
    """Settings of strategies that compare tokens with each other."""

    space: Literal["tower", "projected"] = Field(
        "tower",
        description="Where tokens are compared: as the vision tower's features, or as projected "
        "into the decoder's space.",
    )


def without_projected(signals: Mapping[str, Any], params: SpaceParams) -> dict[str, Any]:
    """Return what is read of these signals: the projected tokens only in their space."""
    return {
        name: signal
        for name, signal in signals.items()
        if signal != "projected_similarity" or params.space == "projected"
    }
