"""Strategies: how visual tokens are ranked and dropped, one file each (see prunecal.core.plugins).

A strategy is a module that follows `VisionStrategy` or `DecoderStrategy`.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import ValidationError

from prunecal.core import plugins
from prunecal.core.errors import PrunecalError
from prunecal.core.parameters import Parameters, sentence
from prunecal.engine.interfaces import PrunesInside

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    from torch import Tensor


@dataclass(frozen=True)
class Images:
    """The images whose tokens a strategy ranks.

    Attributes:
        features: float32 [B, N, D], the vision tower's token features.
        saliency: float32 [B, N], attention from CLS to each token.
        ids: the images' ids; None where the caller has none.
    """

    features: Tensor
    saliency: Tensor
    ids: list[str] | None = None


class Strategy(Protocol):
    """What every strategy has."""

    LABEL: str  # its name in figures and tables
    Params: type[Parameters]  # its settings
    PRUNES: Literal["before_llm", "inside_llm"]


class VisionStrategy(Strategy, Protocol):
    """A strategy that ranks an image's visual tokens before the language model sees them."""

    PRUNES: Literal["before_llm"]

    def rank(self, images: Images, budget: int, params: Any) -> Tensor:
        """Return the tokens to keep, int64 [B, budget] in order of selection, of B images.

        The ranking for a smaller budget must be a prefix, and no image's ranking may depend on the
        other images of the batch.
        """


class RanksTogether(VisionStrategy, Protocol):
    """A vision strategy that shares work between several settings."""

    def rank_many(self, images: Images, budget: int, variants: Any) -> list[Tensor]:
        """Return what `rank` returns for each of the settings."""


class DecoderStrategy(Strategy, PrunesInside, Protocol):
    """A strategy that drops visual tokens inside the language model, per question."""

    PRUNES: Literal["inside_llm"]


def protocol(plugin: ModuleType) -> type:
    """Return the protocol that a strategy has to follow."""
    prunes = getattr(plugin, "PRUNES", None)
    if prunes == "before_llm":
        return RanksTogether if hasattr(plugin, "rank_many") else VisionStrategy
    return DecoderStrategy if prunes == "inside_llm" else Strategy


def rank(
    strategy: str, features: Tensor, saliency: Tensor, budget: int, **params: object
) -> Tensor:
    """Rank each image's visual tokens in the order in which a strategy keeps them.

    Rankings are nested: that for a smaller budget is a prefix.

    Args:
        strategy: name of a strategy that ranks vision features, for example "scope".
        features: float32 [B, N, D], the vision tower's token features.
        saliency: float32 [B, N], attention from CLS to each token.
        budget: tokens to keep, 1 to N.
        **params: the strategy's own parameters, and `image_ids`, one for each image, which
            "random" needs and the others ignore.

    Returns:
        int64 [B, budget], indices of tokens in order of selection.

    Raises:
        PrunecalError: an unknown strategy or parameter, a value out of range, shapes that do not
            fit, or features or saliency that are not finite.
    """
    image_ids = params.pop("image_ids", None)
    return rank_many(strategy, features, saliency, budget, [params], image_ids=image_ids)[0]


def rank_many(
    strategy: str,
    features: Tensor,
    saliency: Tensor,
    budget: int,
    variants: Sequence[Mapping[str, object]],
    image_ids: list[str] | None = None,
) -> list[Tensor]:
    """Rank tokens by several settings of one strategy, which share what they can.

    What is shared is up to the strategy: one with a `rank_many` of its own gets all settings at
    once.

    Args:
        strategy: as for `rank`.
        features: as for `rank`.
        saliency: as for `rank`.
        budget: as for `rank`.
        variants: sets of the strategy's own parameters.
        image_ids: as for `rank`.

    Returns:
        int64 [B, budget] for each variant, the same as `rank` returns.

    Raises:
        PrunecalError: as for `rank`.
    """
    import torch

    module = plugins.load("strategies", strategy)
    if module.PRUNES != "before_llm":
        raise PrunecalError(f"{strategy}: ranks tokens inside the language model, not features")
    settings = [_settings(strategy, module, variant) for variant in variants]
    budget = _check(strategy, features, saliency, budget, image_ids)
    images = Images(features.float(), saliency.float(), image_ids)
    with torch.no_grad():
        if hasattr(module, "rank_many"):
            return module.rank_many(images, budget, settings)
        return [module.rank(images, budget, params) for params in settings]


def _settings(strategy: str, module: ModuleType, params: Mapping[str, object]) -> Parameters:
    try:
        return module.Params(**params)
    except ValidationError as error:
        raise PrunecalError(f"{strategy}: {sentence(error, module.Params)}") from error


def _check(
    strategy: str, features: Tensor, saliency: Tensor, budget: int, image_ids: list[str] | None
) -> int:
    """Return the budget as an int once all inputs fit together."""
    if features.ndim != 3 or 0 in features.shape:
        raise PrunecalError(
            f"{strategy}: features have shape {list(features.shape)}; give [images, tokens, width]"
        )
    images, tokens, _ = features.shape
    if saliency.shape != (images, tokens):
        raise PrunecalError(
            f"{strategy}: saliency has shape {list(saliency.shape)} where features need "
            f"{[images, tokens]}"
        )
    if image_ids is not None and len(image_ids) != images:
        raise PrunecalError(
            f"{strategy}: {len(image_ids)} image_ids for {images} images; give one for each"
        )
    try:
        budget = operator.index(budget)
    except TypeError as error:
        raise PrunecalError(
            f"{strategy}: budget {budget!r} is not a whole number; give 1 to {tokens}"
        ) from error
    if not 1 <= budget <= tokens:
        raise PrunecalError(
            f"{strategy}: budget {budget} is out of range; the images have 1 to {tokens} tokens"
        )
    for name, values in (("features", features), ("saliency", saliency)):
        finite = values.flatten(1).sum(1).isfinite()
        if not finite.all() and not (finite := values.flatten(1).isfinite().all(1)).all():
            image = finite.logical_not().nonzero()[0].item()
            which = image if image_ids is None else image_ids[image]
            raise PrunecalError(
                f"{strategy}: image {which} has NaN or infinite {name}; delete "
                "features.safetensors and run snakemake again"
            )
    return budget
