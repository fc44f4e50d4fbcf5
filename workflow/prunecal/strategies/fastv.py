"""FastV: after a few decoder layers, keep the visual tokens that the last prompt token attends to.

arXiv 2403.06764. Followed: the official `LlamaModel.forward` (pkunlp-icler/FastV, in place):
scores are the attention of layer `layer` - 1 from the last token, mean over heads; the kept tokens
stay in raster order and at their original positions. The image is found by its own columns, never
by fixed offsets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.core import plugins
from prunecal.core.errors import PrunecalError
from prunecal.strategies._fastv import FastVParams, coverage, rows_of_questions, select

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunecal.engine.batch import Batch
    from prunecal.engine.decoder import Decoder, Past

__all__ = ["Params", "coverage", "fastv_logits", "infer", "tokens_per_layer"]

LABEL = "FastV"
PRUNES = "inside_llm"


class Params(FastVParams):
    """FastV drops tokens in place: layers before `layer` have seen all of them."""


def tokens_per_layer(visual_tokens: int, budget: int, depth: int, params: Params) -> float:
    """Return the mean number of visual tokens that a decoder layer computes on."""
    return (params.layer * visual_tokens + (depth - params.layer) * budget) / depth


def infer(
    decoder: Decoder, batch: Batch, past: Past, budget: int, params: Params
) -> tuple[Tensor, Tensor]:
    """Answer a micro-batch of unpruned rows, pruning inside the decoder, per question.

    Arguments and returns are those of `engine.interfaces.PrunesInside.infer`.

    Raises:
        PrunecalError: the decoder has no layer after `layer`.
    """
    states, kept = select(decoder, batch, past, budget, params.layer)
    pruned = rows_of_questions(batch, states, kept)
    finals, _ = decoder.run(pruned, past, first=params.layer)
    return finals[:, 0], kept


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
    import torch

    from prunecal.engine.batch import Batch
    from prunecal.engine.decoder import Decoder, Rows

    columns = is_image.nonzero().flatten().tolist()
    length = inputs_embeds.shape[1]
    if len(is_image) != length or not columns or columns[-1] - columns[0] + 1 != len(columns):
        raise PrunecalError(
            f"fastv: is_image must mark one run of visual tokens among the {length} of the prompt"
        )
    start, end = columns[0], columns[-1] + 1
    if end == length:
        raise PrunecalError("fastv: the prompt ends with the image; text must follow it")
    if not 1 <= budget <= len(columns):
        raise PrunecalError(
            f"fastv: budget {budget} is not between 1 and the prompt's {len(columns)} visual tokens"
        )
    decoder = Decoder(model.model, model.lm_head)
    with torch.no_grad():
        past = decoder.prefill(inputs_embeds[0, :start]) if start else None
        positions = torch.arange(start, length, device=inputs_embeds.device)[None]
        blocks = (positions >= end).long()
        answers = positions.new_tensor([[length - start - 1]])
        rows = Rows(inputs_embeds[:, start:], positions, blocks, answers)
        zero = positions.new_zeros(1)
        batch = Batch(rows, len(columns), zero, zero, longest=length - end)
        # by name: what FastV computes must not hang on the code of its variant
        strategy = plugins.load("strategies", "fastv-two-pass" if two_pass else "fastv")
        params = strategy.Params(layer=layer)
        states, kept = strategy.infer(decoder, batch, past, budget, params)
        return kept[0], decoder.logits(states)[0]
