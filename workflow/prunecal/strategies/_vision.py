"""The settings that all strategies share which prune before the language model."""

from typing import Literal

from pydantic import Field

from prunecal.core.parameters import Parameters


class VisionParams(Parameters):
    """Settings of every strategy that drops visual tokens before the language model."""

    positions: Literal["compact", "original"] = Field(
        "compact",
        description="Position ids of the kept tokens: renumbered without gaps (compact) or those "
        "that they have in the unpruned prompt (original).",
    )
