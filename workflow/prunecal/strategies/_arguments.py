"""What callers give to the public functions of strategies, taken apart and checked."""

from __future__ import annotations

import operator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from prunecal.core import plugins
from prunecal.core.errors import PrunecalError
from prunecal.core.parameters import Parameters, sentence
from prunecal.strategies._protocols import Images
from prunecal.study.strategy_settings import reads

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import ModuleType

    from torch import Tensor


def taken(strategy: str, params: dict[str, Any]) -> dict[str, Any]:
    """Take what a strategy READS out of its keyword arguments."""
    module = plugins.load("strategies", strategy)
    reads = plugins.declared("strategies", module, "READS") if module.PRUNES == "before_llm" else {}
    return {name: params.pop(name) for name in reads if name in params}


def images_of(
    strategy: str,
    module: ModuleType,
    settings: Sequence[Parameters],
    features: Tensor,
    saliency: Tensor,
    image_ids: Any,
    signals: Mapping[str, Tensor] | None,
    grids: tuple[tuple[int, int], ...],
) -> Images:
    """Return the images with what the strategy reads of them, in float32.

    Raises:
        PrunecalError: a signal is missing or not finite.
    """
    given = {name: values.float() for name, values in (signals or {}).items()}
    missing = [name for one in settings for name in reads(module, one) if name not in given]
    if missing:
        raise PrunecalError(f"{strategy}: {missing[0]} is missing; pass it by that name")
    for name, values in given.items():
        if not values.isfinite().all():
            raise PrunecalError(f"{strategy}: {name} has NaN or infinite values")
    return Images(features.float(), saliency.float(), image_ids, given, grids)


@contextmanager
def inputs_left(strategy: ModuleType, images: Images) -> Iterator[None]:
    """Refuse a strategy that changes what it is given, as other settings would read the change.

    Raises:
        PrunecalError: an array was written to in place.
    """
    arrays = {"features": images.features, "saliency": images.saliency, **images.signals}
    # tensors made in inference mode count no writes
    before = {name: one._version for name, one in arrays.items() if not one.is_inference()}
    yield
    for name, version in before.items():
        if arrays[name]._version != version:
            raise PrunecalError(
                f"the strategy {strategy.__name__} ({strategy.__file__}) writes into the {name} of "
                "its images; have it write into a copy, made with .clone()"
            )


def settings_of(strategy: str, module: ModuleType, params: Mapping[str, object]) -> Parameters:
    """Return a strategy's settings.

    Raises:
        PrunecalError: one is unknown or out of range.
    """
    try:
        return module.Params(**params)
    except ValidationError as error:
        raise PrunecalError(f"{strategy}: {sentence(error, module.Params)}") from error


def checked_budget(
    strategy: str, features: Tensor, saliency: Tensor, budget: int, image_ids: list[str] | None
) -> int:
    """Return the budget as an int once all inputs fit together.

    Raises:
        PrunecalError: names the strategy and what does not fit.
    """
    import torch

    for name, values in (("features", features), ("saliency", saliency)):
        if not isinstance(values, torch.Tensor):
            raise PrunecalError(
                f"{strategy}: {name} are no tensor but of the type {type(values).__name__}; give "
                f"torch.as_tensor({name})"
            )
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
