"""FastV: after a few decoder layers, keep the visual tokens that the last prompt token attends to.

arXiv 2403.06764. Followed: the official `LlamaModel.forward` (pkunlp-icler/FastV d165972, in
place): scores are the attention of layer `layer` - 1 from the last token, mean over heads; the kept
tokens stay in raster order and at their original positions. The paper defines the score as the mean
attention from all tokens; the code takes the last one. The image is found by its own columns, never
by fixed offsets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.engine.interfaces import Stage
from prunecal.strategies._fastv import FastVParams, refuse_deep, select

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Params", "explicit", "fastv_logits", "select", "stages"]

LABEL = "FastV"
PRUNES = "inside_llm"


class Params(FastVParams):
    """FastV drops tokens in place: layers before `layer` have seen all of them."""


def stages(visual_tokens: int, budget: float, depth: int, params: Params) -> list[Stage]:
    """Look at layer `layer` - 1, drop before layer `layer`.

    Raises:
        PrunecalError: the decoder has no layer after `layer`.
    """
    refuse_deep(params.layer, depth)
    return [Stage(params.layer - 1, params.layer, round(budget))]


def explicit(
    visual_tokens: int, depth: int, layer: int = 2, budget: int = 16
) -> tuple[list[Stage], Params]:
    """Return stages and settings from the official arguments, for `decode`."""
    params = Params(layer=layer)
    return stages(visual_tokens, budget, depth, params), params


def fastv_logits(
    model: nn.Module,
    inputs_embeds: Tensor,
    is_image: Tensor,
    layer: int = 2,
    budget: int = 16,
    two_pass: bool = False,
) -> tuple[Tensor, Tensor]:
    """Run FastV on one prompt, by the code that the workflow's inference runs.

    Args:
        model: a LlamaForCausalLM.
        inputs_embeds: float32 [1, T, D], the prompt's embeddings.
        is_image: bool [T], which of them are visual tokens: one run of neighbours.
        layer: decoder layers that see every visual token, 1 to depth - 1.
        budget: visual tokens to keep.
        two_pass: prune the input of a second full pass instead of pruning in place.

    Returns:
        Kept image-token indices int64 [budget] in raster order, and logits float32 [vocab] at the
        last position.

    Raises:
        PrunecalError: shapes that do not fit, no text after the image, a budget or layer out of
            range.
    """
    from prunecal.strategies import decode

    name = "fastv-two-pass" if two_pass else "fastv"
    kept, logits = decode(name, model, inputs_embeds, is_image, layer=layer, budget=budget)
    return kept[0], logits
