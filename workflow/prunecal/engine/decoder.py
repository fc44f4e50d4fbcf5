"""A Llama-like decoder, run layer by layer on packed rows.

The layers are the model's own modules (transformers' Llama, or any decoder with the same module
names). Only the loop over them is our own, because `forward` lacks three features: rows in which
several questions share one prefix, the attention of one layer's last query without the full
attention matrix, and a set of tokens that changes between layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

Past = list[tuple["Tensor", "Tensor"]]
STRETCH = 256  # queries whose attention is computed at a time
WORDS = 4096  # of the vocabulary, whose logits are computed at a time


@dataclass
class Rows:
    """A batch of packed rows.

    Attributes:
        states: [B, T, H], embeddings or hidden states.
        positions: int64 [B, T], position ids.
        blocks: int64 [B, T]; all later tokens of the row attend to block 0, only tokens of block b
            attend to block b > 0, and -1 is padding.
        answers: int64 [B, A], columns whose final states are returned; rows with fewer repeat one.
    """

    states: Tensor
    positions: Tensor
    blocks: Tensor
    answers: Tensor


class Backbone(Protocol):
    """A LlamaModel, or a module with these parts of it."""

    embed_tokens: Callable[[Tensor], Tensor]
    layers: Any  # modules with the names of LlamaDecoderLayer's parts
    norm: Callable[[Tensor], Tensor]
    rotary_emb: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Decoder:
    """The language model of a multimodal LLM.

    Args:
        backbone: its layers and what stands around them.
        head: the language-model head, a linear map without bias.
    """

    def __init__(self, backbone: Backbone, head: nn.Linear) -> None:
        self.backbone, self.head = backbone, head
        self.layers = backbone.layers

    @property
    def most_positions(self) -> int | None:
        """Tokens that the model was made to read, or None where its config does not tell."""
        config = getattr(self.backbone, "config", None)
        positions = getattr(config, "max_position_embeddings", None)
        rope = getattr(config, "rope_parameters", None) or {}
        if positions is None or rope.get("rope_type") not in ("linear", "dynamic"):
            return positions  # other kinds of scaling count the positions after it
        return int(positions * rope.get("factor", 1))

    def embed(self, tokens: Tensor) -> Tensor:
        """Return embeddings [..., H] of token ids [...]."""
        return self.backbone.embed_tokens(tokens)

    def prefill(self, embeddings: Tensor) -> Past:
        """Return keys and values [1, heads, S, d] per layer of a text [S, H] before all rows."""
        length = len(embeddings)
        positions = torch.arange(length, device=embeddings.device)[None]
        rows = Rows(embeddings[None], positions, torch.zeros_like(positions), positions)
        past: Past = []
        self.run(rows, keep=past)
        return past

    def run(
        self,
        rows: Rows,
        past: Past | None = None,
        first: int = 0,
        last: int | None = None,
        *,
        score: bool = False,
        keep: Past | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Run layers `first` to `last` (exclusive; all by default).

        Args:
            rows: the input of layer `first`.
            past: keys and values of a shared text before the rows, for every layer.
            first: first layer.
            last: layer to stop before. If it is the number of layers, the last layer computes only
                the states of the answers.
            score: also return the attention of the answers' queries in layer `last` - 1.
            keep: list to which each layer's keys and values are appended.

        Returns:
            States [B, T, H] before layer `last`, or [B, A, H] of the answers after the last layer;
            and the scores, float32 [B, A, S + T]: attention after softmax, mean over heads.
        """
        depth = len(self.layers)
        last = depth if last is None else last
        states = rows.states
        cos, sin = (part[:, None] for part in self.backbone.rotary_emb(states, rows.positions))
        system = 0 if past is None else past[0][0].shape[2]
        mask = _mask(rows.blocks, system, states.dtype)
        scores = None
        for number in range(first, last):
            layer = self.layers[number]
            attention, normed = layer.self_attn, layer.input_layernorm(states)
            keys = _rotate(_heads(attention.k_proj(normed), attention), cos, sin)
            values = _heads(attention.v_proj(normed), attention)
            if keep is not None:
                keep.append((keys, values))
            if past is not None:
                keys = _prepend(past[number][0], keys)
                values = _prepend(past[number][1], values)
            seen, q_cos, q_sin = mask, cos, sin
            if number == depth - 1 and keep is None:  # the last layer's other states are never read
                states, normed = (_pick(part, rows.answers) for part in (states, normed))
                seen, q_cos, q_sin = (_pick_heads(part, rows.answers) for part in (mask, cos, sin))
            queries = _rotate(_heads(attention.q_proj(normed), attention), q_cos, q_sin)
            if score and number == last - 1:
                last_queries, last_mask = (
                    _pick_heads(part, rows.answers) for part in (queries, mask)
                )
                scores = _attention(last_queries, keys, last_mask, attention.scaling)
            stretch = STRETCH if seen is mask else len(seen[0, 0])  # few answers, in any order
            mixed = _attend(queries, keys, values, seen, attention.scaling, stretch)
            # in place where no one else holds the tensor: after the matrix products, memory traffic
            # costs most
            states = attention.o_proj(mixed.transpose(1, 2).flatten(2)).add_(states)
            normed, mlp = layer.post_attention_layernorm(states), layer.mlp
            gate = mlp.act_fn(mlp.gate_proj(normed))
            states = mlp.down_proj(gate.mul_(mlp.up_proj(normed))).add_(states)
        return states, scores

    def logits(self, states: Tensor, tokens: Tensor | slice | None = None) -> Tensor:
        """Return float32 logits [..., V] of final states [..., H], of some tokens or of all."""
        weight = self.head.weight if tokens is None else self.head.weight[tokens]
        return self.backbone.norm(states).float() @ weight.float().T

    def over_vocabulary(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Read final states [..., H] over the whole vocabulary.

        Some thousand tokens at a time, since a float32 copy of a half-precision head would take
        twice the head's memory.

        Returns:
            Log-sum-exp of all logits, float32 [...], and the token of the largest logit, int64
            [...], the lowest id of a tie.
        """
        normaliser = highest = states.new_full(states.shape[:-1], -torch.inf, dtype=torch.float32)
        top = torch.zeros_like(highest, dtype=torch.int64)
        for start in range(0, len(self.head.weight), WORDS):
            logits = self.logits(states, slice(start, start + WORDS))
            normaliser = torch.logaddexp(normaliser, logits.logsumexp(dim=-1))
            value, token = logits.max(dim=-1)  # the first of several
            top = torch.where(value > highest, token + start, top)
            highest = torch.maximum(highest, value)
        return normaliser, top


def _heads(projected: Tensor, attention: nn.Module) -> Tensor:
    """Return [B, heads, T, d] from [B, T, heads * d]."""
    return projected.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary position embeddings (arXiv 2104.09864, in the half-split order of Llama)."""
    half = states.shape[-1] // 2
    rotated = states * cos
    rotated[..., :half].addcmul_(states[..., half:], sin[..., :half], value=-1)
    rotated[..., half:].addcmul_(states[..., :half], sin[..., half:])
    return rotated


def _attend(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scaling: float, stretch: int
) -> Tensor:
    """Return the attention output [B, heads, Q, d], computed for a stretch of queries at a time.

    Attention is causal, so each stretch needs only the keys up to its end: many stretches compute
    half of the products that a single call would compute and then mask.

    Args:
        queries: [B, heads, Q, d], at the last Q keys if there are several stretches.
        keys: [B, heads, S + T, d].
        values: [B, heads, S + T, d].
        mask: additive, [B, 1, Q, S + T].
        scaling: factor of the products.
        stretch: queries at a time.
    """
    count, length = queries.shape[2], keys.shape[2]
    parts = []
    for start in range(0, count, stretch):
        end = min(start + stretch, count)
        seen = length - count + end
        part = functional.scaled_dot_product_attention(
            queries[:, :, start:end],
            keys[:, :, :seen],
            values[:, :, :seen],
            attn_mask=mask[:, :, start:end, :seen],
            scale=scaling,
            enable_gqa=queries.shape[1] != keys.shape[1],
        )
        parts.append(part)
    return torch.cat(parts, dim=2)


def _prepend(past: Tensor, current: Tensor) -> Tensor:
    return torch.cat((past.expand(len(current), -1, -1, -1), current), dim=2)


def _pick(states: Tensor, columns: Tensor) -> Tensor:
    """Return [B, A, H], the columns [B, A] of states [B, T, H]."""
    return states.gather(1, columns[..., None].expand(-1, -1, states.shape[-1]))


def _pick_heads(states: Tensor, columns: Tensor) -> Tensor:
    """Return [B, heads, A, X], the columns [B, A] of [B, heads, T, X]."""
    index = columns[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[-1])
    return states.expand(len(columns), -1, -1, -1).gather(2, index)


def _mask(blocks: Tensor, system: int, dtype: torch.dtype) -> Tensor:
    """Return the additive attention mask [B, 1, T, S + T]; every token attends to itself."""
    length = blocks.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=blocks.device).tril()
    before, after = blocks[:, None, :], blocks[:, :, None]
    seen = causal & ((before == 0) | (before == after))
    mask = torch.zeros(seen.shape, dtype=dtype, device=blocks.device)
    mask = mask.masked_fill_(~seen, -torch.inf)
    return functional.pad(mask, (system, 0))[:, None]


def _attention(queries: Tensor, keys: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """Return the attention of a few queries, float32 [B, A, S + T], mean over heads."""
    keys = keys.repeat_interleave(queries.shape[1] // keys.shape[1], dim=1)
    logits = queries @ keys.transpose(2, 3) * scaling + mask
    return logits.softmax(dim=-1, dtype=torch.float32).mean(dim=1)
