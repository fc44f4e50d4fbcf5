"""What a strategy is: the protocols that its module follows, checked when it is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from prunecal.core.errors import PrunecalError
from prunecal.core.parameters import Parameters
from prunecal.core.protocols import refuse_unlike
from prunecal.engine.interfaces import Asks, PrunesInside, Signal
from prunecal.study.strategy_settings import TEXT_SIGNALS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from torch import Tensor


@dataclass(frozen=True)
class Images:
    """The images whose tokens a strategy ranks or merges.

    Attributes:
        features: float32 [B, N, D], the vision tower's token features.
        saliency: float32 [B, N], attention from CLS to each token.
        ids: the images' ids; None where the caller has none.
        signals: what else the strategy READS, by its own names.
        grids: rows and columns of the grids of patches that the tokens of each image are, one after
            another in raster order; none if they are one square.
    """

    features: Tensor
    saliency: Tensor
    ids: list[str] | None = None
    signals: Mapping[str, Tensor] = field(default_factory=dict)
    grids: tuple[tuple[int, int], ...] = ()


class Strategy(Protocol):
    """What every strategy has."""

    LABEL: str  # its name in figures and tables
    Params: type[Parameters]  # its settings
    PRUNES: Literal["before_tower", "before_llm", "inside_llm", "everything"]


class BeforeLlm(Strategy, Protocol):
    """A strategy that replaces an image's visual tokens by fewer before the language model."""

    PRUNES: Literal["before_llm"]
    NESTED: bool = True  # whether the tokens of a smaller budget are a prefix of a larger one's
    PER: Literal["image", "question"] = "image"  # what a set of tokens belongs to
    # beside features and saliency: signals, by its own names; all, if a function `reads(params)`
    # returns those of some settings
    READS: dict[str, Signal] = {}


class VisionStrategy(BeforeLlm, Protocol):
    """A strategy that keeps some of an image's visual tokens."""

    def rank(self, images: Images, budget: int, params: Any) -> Tensor:
        """Return the tokens to keep, int64 [B, budget] in order of selection, of B images.

        Unless NESTED is False, the ranking for a smaller budget must be a prefix. No image's
        ranking may depend on the other images of the batch.
        """


class RanksTogether(VisionStrategy, Protocol):
    """A vision strategy that shares work between several settings."""

    def rank_many(self, images: Images, budget: int, variants: Any) -> list[Tensor]:
        """Return what `rank` returns for each of the settings."""


class MergingStrategy(BeforeLlm, Protocol):
    """A strategy whose tokens are sums of an image's visual tokens."""

    NESTED: bool = False

    def merge(self, images: Images, budget: int, params: Any) -> Tensor:
        """Return the weights of CLS and of the N visual tokens in each token, [B, budget, N + 1].

        No image's weights may depend on the other images of the batch.
        """


class DecoderStrategy(Strategy, PrunesInside, Protocol):
    """A strategy that drops visual tokens inside the language model, per question."""

    PRUNES: Literal["inside_llm"]


class AskingStrategy(DecoderStrategy, Asks, Protocol):
    """A decoder strategy that looks at the attention of other text tokens than the last."""


class ReadsBySettings(Protocol):
    """A strategy before the language model that reads less with some settings."""

    def reads(self, params: Any) -> dict[str, Signal]:
        """Return what is read with these settings, a part of READS."""


def protocol(plugin: ModuleType) -> type:
    """Return the protocol that a strategy has to follow."""
    prunes = getattr(plugin, "PRUNES", None)
    if prunes == "before_llm" and hasattr(plugin, "merge"):
        return MergingStrategy
    if prunes == "before_llm":
        return RanksTogether if hasattr(plugin, "rank_many") else VisionStrategy
    if prunes == "inside_llm":
        return AskingStrategy if hasattr(plugin, "queries") else DecoderStrategy
    return Strategy


def refuse_contradictions(plugin: ModuleType) -> None:
    """Refuse declarations of a strategy that follow its protocol but do not fit each other.

    Raises:
        PrunecalError: a ranking of images that reads texts, one of questions that reads none, or
            positions that nobody knows.
    """
    what = f"the strategy {plugin.__name__}"
    if hasattr(plugin, "reads"):
        refuse_unlike(what, plugin, ReadsBySettings)
    of_text = any(name in TEXT_SIGNALS for name in getattr(plugin, "READS", {}).values())
    if of_text != (getattr(plugin, "PER", "image") == "question"):
        raise PrunecalError(
            f'{what} must have PER = "question" and read a text in READS '
            f"({', '.join(TEXT_SIGNALS)}), or neither"
        )
    settings = getattr(getattr(plugin, "Params", None), "model_fields", {})
    if "positions" in settings and settings["positions"].default not in ("compact", "original"):
        raise PrunecalError(f'{what} has positions that are neither "compact" nor "original"')
