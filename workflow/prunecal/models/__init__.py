"""Model families: how models are run, one file each (see prunecal.core.plugins).

A family is a module that follows `ModelFamily`. It may also have `Params`, its own settings;
`POSITIONS`, those of kept tokens that it knows ("compact", "original"), the default one first;
`OWN_RESOLUTION`, true if smaller images have fewer tokens and its models a function
`encode_smaller(images, tokens)`, which makes each smaller, to about so many;
`most_tokens(params)`, the most visual tokens that an image can have, None if all have equally many;
`SIGNALS`, what its models' `encode_signals` gives; `MERGED_TOKENS`, false if sums of visual tokens
cannot stand in their place; and `check(folder, settings)`, which refuses what loading would refuse,
as far as it can be told without weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from prunecal.core import plugins
from prunecal.core.protocols import refuse_unlike
from prunecal.engine.interfaces import Part, VisionEncoder, VisionLanguageModel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import ModuleType

    import torch

__all__ = ["ModelFamily", "Part", "VisionLanguageModel", "check_model", "load_model", "protocol"]


class ModelFamily(Protocol):
    """What the module of a model family offers."""

    LABEL: str  # its name in prose
    MODEL_TYPES: tuple[str, ...]  # the `model_type` in config.json of models that it can run

    def load(
        self, folder: Path, settings: Mapping[str, Any], device: torch.device, part: Part
    ) -> VisionLanguageModel:
        """Load a model.

        Args:
            folder: weights, configuration, tokenizer and image processor in the Hub's layout.
            settings: `visual_tokens`, `template`, `dtype` and the family's own settings.
            device: where to run.
            part: what is asked of the model: `encode` ("vision"), all but that ("language"), or
                all ("whole"). A family may load more.
        """


def protocol(_: ModuleType) -> type:
    """Return the protocol that every model family has to follow."""
    return ModelFamily


def check_model(family: str, folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuse what a family's `check(folder, settings)` can tell of a folder before it has weights.

    A family from elsewhere may lack it; it then finds the same faults when it loads the model.

    Raises:
        PrunecalError: the folder's configuration, tokenizer or image processor does not fit.
    """
    check = getattr(plugins.load("models", family), "check", None)
    if check is not None:
        check(folder, settings)


def load_model(
    family: str,
    folder: Path,
    settings: Mapping[str, Any],
    device: torch.device,
    part: Part = "whole",
) -> VisionLanguageModel:
    """Load a model by its family's name and check that it offers what the stages need.

    The arguments after the family are those of its `load`.

    Raises:
        PrunecalError: the family is unknown or lacks something, or cannot load the folder.
    """
    model = plugins.load("models", family).load(folder, settings, device, part)
    offered = VisionEncoder if part == "vision" else VisionLanguageModel
    refuse_unlike(f"the model of family {family!r}", model, offered)
    return model
