"""Recipes: how models are trained from scratch, one file each (see prunecal.core.plugins).

A recipe is a module that follows `Recipe`. It may also have `TEMPLATES`, the names of the
conversation templates that it trains with: else a change of any one trains its models again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from prunecal.core.parameters import Parameters

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


class Recipe(Protocol):
    """What the module of a recipe offers."""

    LABEL: str  # its name in prose
    Params: type[Parameters]  # its settings

    def train(self, params: Any, folder: Path) -> Any:
        """Train a model and save it to an existing empty folder.

        It writes weights (as safetensors), configuration, tokenizer and image processor in the
        Hub's layout, and the learning curve as learning_curve.csv.
        """


def protocol(_: ModuleType) -> type:
    """Return the protocol that every recipe has to follow."""
    return Recipe
