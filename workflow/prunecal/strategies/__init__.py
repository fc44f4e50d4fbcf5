"""Strategies: how visual tokens are ranked and dropped, one file each (see prunecal.core.plugins).

A strategy is a module that follows one of the protocols of `_protocols`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunecal.core import plugins
from prunecal.core.errors import PrunecalError
from prunecal.strategies._arguments import (
    checked_budget,
    images_of,
    inputs_left,
    settings_of,
    taken,
)
from prunecal.strategies._protocols import Images, protocol, refuse_contradictions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

__all__ = [
    "Images",
    "decode",
    "merge_many",
    "protocol",
    "rank",
    "rank_many",
    "reduce",
    "refuse_contradictions",
]


def rank(
    strategy: str, features: Tensor, saliency: Tensor, budget: int, **params: object
) -> Tensor:
    """Rank each image's visual tokens in the order in which a strategy keeps them.

    Rankings of strategies that are NESTED are: that for a smaller budget is a prefix.

    Args:
        strategy: name of a strategy that ranks vision features, for example "scope".
        features: float32 [B, N, D], the vision tower's token features.
        saliency: float32 [B, N], attention from CLS to each token.
        budget: tokens to keep, 1 to N.
        **params: the strategy's own parameters; what it READS, by its own names, for example
            `text_embeds`; and `image_ids`, one for each image, which "random" needs and the others
            ignore.

    Returns:
        int64 [B, budget], indices of tokens in order of selection.

    Raises:
        PrunecalError: an unknown strategy or parameter, a value out of range, shapes that do not
            fit, features or saliency that are not finite, or a strategy whose function returns
            anything but `budget` different tokens or changes what it is given.
    """
    image_ids = params.pop("image_ids", None)
    signals = taken(strategy, params)
    return rank_many(strategy, features, saliency, budget, [params], image_ids, signals)[0]


def reduce(
    strategy: str, features: Tensor, saliency: Tensor, budget: int | None, **params: object
) -> tuple[Any, Any]:
    """Reduce each image's visual tokens to fewer, merging them if the strategy does.

    Args:
        strategy: name of a strategy that prunes before the language model.
        features: as for `rank`.
        saliency: as for `rank`.
        budget: tokens per image, 1 to N; None for PruMerge's own number, which differs between
            images.
        **params: as for `rank`; and `cls`, [B, 1, D], the state of CLS, if its weights are not 0.

    Returns:
        Tokens [B, budget, D] and weights [B, budget, N + 1] of CLS and the visual tokens in them;
        lists of both, one entry per image, if the budget is None.

    Raises:
        PrunecalError: as `rank`.
    """
    import torch

    image_ids = params.pop("image_ids", None)
    signals = taken(strategy, params)
    module = plugins.load("strategies", strategy)
    cls = signals.get("cls", params.pop("cls", None))
    if not hasattr(module, "merge"):
        kept = rank_many(strategy, features, saliency, budget, [params], image_ids, signals)[0]
        one_hot = torch.nn.functional.one_hot(kept.sort(dim=1).values + 1, features.shape[1] + 1)
        weights: Any = one_hot.float()
    else:
        weights = merge_many(strategy, features, saliency, budget, [params], image_ids, signals)[0]
    if cls is None:
        cls = features.new_zeros(len(features), 1, features.shape[2])
    sources = torch.cat((cls.to(features), features), dim=1)
    if isinstance(weights, list):
        pairs = zip(weights, sources, strict=True)
        return [one @ source for one, source in pairs], weights
    return weights @ sources, weights


def decode(
    strategy: str, model: nn.Module, inputs_embeds: Tensor, is_image: Tensor, **params: Any
) -> tuple[list[Tensor], Tensor]:
    """Answer one prompt with a strategy that prunes inside the language model.

    By the code that the workflow's inference runs, without its batching.

    Args:
        strategy: its name.
        model: a LlamaForCausalLM.
        inputs_embeds: float32 [1, T, D], the prompt's embeddings.
        is_image: bool [T], which of them are visual tokens: one run of neighbours.
        **params: the arguments of the strategy's function `explicit`, which name layers and
            numbers of tokens as its official code does.

    Returns:
        The kept tokens after each stage, int64 [K]: numbers of patches, or, if the strategy may
        merge, places in the visual sequence that entered the stage; and logits float32 [vocab] at
        the last position.

    Raises:
        PrunecalError: shapes that do not fit, no text after the image, or stages that the model
            cannot run.
    """
    import torch

    from prunecal.engine import stacks, stages
    from prunecal.engine.batch import single
    from prunecal.engine.decoder import Decoder
    from prunecal.engine.unpruned import Unpruned

    module = plugins.load("strategies", strategy)
    if module.PRUNES != "inside_llm" or not hasattr(module, "explicit"):
        raise PrunecalError(f"{strategy}: has no function `explicit`, so it cannot decode a prompt")
    columns, length = is_image.nonzero().flatten().tolist(), inputs_embeds.shape[1]
    if len(is_image) != length or not columns or columns[-1] - columns[0] + 1 != len(columns):
        raise PrunecalError(
            f"{strategy}: is_image must mark one run of visual tokens among the {length} of the "
            "prompt"
        )
    start, end = columns[0], columns[-1] + 1
    if end == length:
        raise PrunecalError(f"{strategy}: the prompt ends with the image; text must follow it")
    decoder = Decoder(model.model, model.lm_head)
    longest = stacks.same_angles(decoder.backbone.config)
    if length > (longest or length):
        raise PrunecalError(
            f"{strategy}: the prompt has {length} tokens, but beyond {longest} the angles of this "
            "model's positions change with a prompt's length; shorten it"
        )
    listed, settings = module.explicit(len(columns), len(decoder.layers), **params)
    with torch.no_grad():
        past = decoder.prefill(inputs_embeds[0, :start]) if start else None
        batch = single(inputs_embeds[0, start:end], inputs_embeds[0, end:], start)
        pruned = stages.run(
            Unpruned(decoder, past, batch, inputs_embeds[:, start:end]), listed, module, settings
        )
        kept = [one[0] for one in pruned.kept]
        if not any(stage.merge for stage in listed) and not getattr(module, "MERGES", False):
            for at in range(1, len(kept)):
                kept[at] = kept[at - 1][kept[at]]
        return kept, decoder.logits(pruned.states)[0]


def rank_many(
    strategy: str,
    features: Tensor,
    saliency: Tensor,
    budget: int,
    variants: Sequence[Mapping[str, object]],
    image_ids: Any = None,
    signals: Mapping[str, Tensor] | None = None,
    grids: tuple[tuple[int, int], ...] = (),
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
        signals: what the strategy READS, by its own names.
        grids: of the images, see `Images`.

    Returns:
        int64 [B, budget] for each variant, the same as `rank` returns.

    Raises:
        PrunecalError: as for `rank`.
    """
    import torch

    from prunecal.engine.selections import function_of, refuse_other_tokens

    module = plugins.load("strategies", strategy)
    if module.PRUNES != "before_llm":
        raise PrunecalError(f"{strategy}: ranks tokens inside the language model, not features")
    if not hasattr(module, "rank"):
        raise PrunecalError(f"{strategy}: merges tokens, so that it ranks none; call `reduce`")
    settings = [settings_of(strategy, module, variant) for variant in variants]
    budget = checked_budget(strategy, features, saliency, budget, image_ids)
    images = images_of(strategy, module, settings, features, saliency, image_ids, signals, grids)
    with torch.no_grad(), inputs_left(module, images):
        if hasattr(module, "rank_many"):
            orders = module.rank_many(images, budget, settings)
        else:
            orders = [module.rank(images, budget, params) for params in settings]
    for order in orders:
        refuse_other_tokens(
            function_of(module, "rank"), order, len(saliency), budget, saliency.shape[1]
        )
    return orders


def merge_many(
    strategy: str,
    features: Tensor,
    saliency: Tensor,
    budget: int | None,
    variants: Sequence[Mapping[str, object]],
    image_ids: Any = None,
    signals: Mapping[str, Tensor] | None = None,
    grids: tuple[tuple[int, int], ...] = (),
) -> list[Any]:
    """Return the weights [B, budget, N + 1] by which a strategy merges, for several settings.

    Arguments are those of `rank_many`; the budget may be None as for `reduce`.

    Raises:
        PrunecalError: as for `rank`.
    """
    import torch

    from prunecal.engine.selections import function_of, refuse_other_weights

    module = plugins.load("strategies", strategy)
    settings = [settings_of(strategy, module, variant) for variant in variants]
    checked = checked_budget(
        strategy, features, saliency, 1 if budget is None else budget, image_ids
    )
    images = images_of(strategy, module, settings, features, saliency, image_ids, signals, grids)
    with torch.no_grad(), inputs_left(module, images):
        merged = [
            module.merge(images, None if budget is None else checked, params) for params in settings
        ]
    if budget is not None:  # else their number is the strategy's own
        rows, tokens = saliency.shape
        for weights in merged:
            what = function_of(module, "merge")
            refuse_other_weights(what, weights, (rows, checked, tokens + 1))
    return merged
