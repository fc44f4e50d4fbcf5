"""What all strategies that rank vision features have in common."""

from typing import Literal

from pydantic import Field

from prunecal.core.parameters import Parameters


class VisionStrategy(Parameters):
    """Settings of every strategy that drops visual tokens before the language model."""

    positions: Literal["compact", "original"] = Field(
        "compact",
        description="Position ids of the kept tokens: renumbered without gaps (compact) or those "
        "that they have in the unpruned prompt (original).",
    )
