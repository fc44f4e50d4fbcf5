"""A pre-norm decoder, run layer by layer on packed rows.

The layers are the model's own modules, of the stacks in `engine.stacks`. Only the loop over them is
our own, because `forward` lacks three features: rows in which several questions share one prefix,
the attention of a layer's few queries without the full attention matrix, and a set of tokens that
changes between layers.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from prunecal.engine import stacks
from prunecal.engine.masks import additive_mask
from prunecal.engine.rows import Rows

if TYPE_CHECKING:
    from torch import Tensor, nn

Past = list[tuple["Tensor", "Tensor"]]
STRETCH = 256  # queries whose attention is computed at a time
WORDS = 4096  # of the vocabulary, whose logits are computed at a time


class Decoder:
    """The language model of a multimodal LLM.

    Args:
        backbone: its layers and what stands around them: one of the models in `engine.stacks`.
        head: the language-model head, a linear map without bias.

    Raises:
        PrunecalError: a stack that the loop would not compute exactly.
    """

    def __init__(self, backbone: Any, head: Any) -> None:
        stacks.refuse_unknown(backbone, head)
        self.backbone, self.head = backbone, head
        self.layers = backbone.layers
        self.kinds, self.window = stacks.kinds(backbone), stacks.window(backbone)
        self._rope_by_kind = (
            "layer_type" in inspect.signature(backbone.rotary_emb.forward).parameters
        )
        self._last: tuple[tuple, int, Any] = ((None,) * 5, -1, None)  # of `_layout`
        self.axes = stacks.axes(backbone)

    @property
    def most_positions(self) -> int | None:
        """Tokens that the model was made to read, or None where its config does not tell."""
        return stacks.most_positions(self.backbone.config)

    def embed(self, tokens: Tensor) -> Tensor:
        """Return embeddings [..., H] of token ids [...]."""
        return self.backbone.embed_tokens(tokens)

    def prefill(self, embeddings: Tensor) -> Past:
        """Return keys and values [1, heads, S, d] per layer of a text [S, H] before all rows."""
        length = len(embeddings)
        positions = torch.arange(length, device=embeddings.device)[None]
        blocks = torch.zeros_like(positions)
        rows = Rows(embeddings[None], positions, blocks, positions, places=positions)
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
        keep: Past | None = None,
    ) -> Tensor:
        """Run layers `first` to `last` (exclusive; all by default).

        Args:
            rows: the input of layer `first`.
            past: keys and values of a shared text before the rows, for every layer; then those of
                `rows.before`.
            first: first layer.
            last: layer to stop before. If it is the number of layers, the last layer computes only
                the states of the answers.
            keep: list to which each layer's keys and values are appended, those of `past` first.

        Returns:
            States [B, T, H] before layer `last`, or [B, A, H] of the answers after the last layer.
        """
        depth = len(self.layers)
        last = depth if last is None else last
        states = rows.states
        system = 0 if past is None else past[0][0].shape[2]
        system -= 0 if rows.before is None else rows.before.blocks.shape[1]
        ropes, masks = self._layout(rows, system)
        for number in range(first, last):
            layer, kind = self.layers[number], self.kinds[number]
            (cos, sin), mask = ropes[kind], masks[kind]
            attention, normed = layer.self_attn, layer.input_layernorm(states)
            q_norm, k_norm = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
            keys = _rotate(_heads(attention.k_proj(normed), attention, k_norm), cos, sin)
            values = _heads(attention.v_proj(normed), attention)
            if past is not None:
                keys = _prepend(past[number][0], keys)
                values = _prepend(past[number][1], values)
            if keep is not None:
                keep.append((keys, values))
            seen, q_cos, q_sin = mask, cos, sin
            if number == depth - 1:  # the last layer's other states are never read
                states, normed = (_pick(part, rows.answers) for part in (states, normed))
                seen, q_cos, q_sin = (_pick_heads(part, rows.answers) for part in (mask, cos, sin))
            queries = _rotate(_heads(attention.q_proj(normed), attention, q_norm), q_cos, q_sin)
            # no query sees the key of a later column
            in_order = seen is mask and rows.groups is None and rows.ordered
            stretch = STRETCH if in_order else len(seen[0, 0])
            mixed = _attend(queries, keys, values, seen, attention.scaling, stretch)
            mixed = attention.o_proj(mixed.transpose(1, 2).flatten(2))
            states = _after_attention(layer, mixed, states)
            if number < len(rows.deep) and states.shape == rows.deep[number].shape:
                states += rows.deep[number]  # answers alone are text, to which nothing is added
        return states

    def look(
        self, rows: Rows, past: Past | None, number: int, columns: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return keys and the attention of a few queries in a layer, without running it.

        Args:
            rows: the input of the layer.
            past: as for `run`.
            number: the layer.
            columns: int64 [B, R], the tokens whose attention is wanted; R may be 0.

        Returns:
            The rows' keys after rotation, [B, key heads, T, d]; and attention after softmax,
            float32 [B, heads, R, S + T].
        """
        layer = self.layers[number]
        attention, normed = layer.self_attn, layer.input_layernorm(rows.states)
        q_norm, k_norm = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
        system = 0 if past is None else past[0][0].shape[2]
        ropes, masks = self._layout(rows, system)
        cos, sin = ropes[self.kinds[number]]
        keys = _rotate(_heads(attention.k_proj(normed), attention, k_norm), cos, sin)
        projected = _heads(attention.q_proj(_pick(normed, columns)), attention, q_norm)
        q_cos, q_sin = (_pick_heads(part, columns) for part in (cos, sin))
        mask = _pick_heads(masks[self.kinds[number]], columns)
        every = keys if past is None else _prepend(past[number][0], keys)
        return keys, _attention(_rotate(projected, q_cos, q_sin), every, mask, attention.scaling)

    def rotated_ones(self, rows: Rows, number: int) -> Tensor:
        """Return vectors of ones as a layer rotates them at each token's position, [B, T, d]."""
        cos, sin = self._ropes(rows.states, rows.positions)[self.kinds[number]]
        ones = cos.new_ones(*cos.shape[:-1], self.layers[number].self_attn.head_dim)
        return _rotate(ones, cos, sin)[:, 0]

    def logits(self, states: Tensor, tokens: Tensor | slice | None = None) -> Tensor:
        """Return float32 logits [..., V] of final states [..., H], of some tokens or of all."""
        weight = self.head.weight if tokens is None else self.head.weight[tokens]
        return self.backbone.norm(states).float() @ weight.float().T

    def over_vocabulary(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read final states [..., H] over the whole vocabulary.

        Some thousand tokens at a time, since a float32 copy of a half-precision head would take
        twice the head's memory.

        Returns:
            Log-sum-exp of all logits, float32 [...], the token of the largest logit, int64 [...],
            the lowest id of a tie, and that logit, float32 [...].
        """
        normaliser = highest = states.new_full(states.shape[:-1], -torch.inf, dtype=torch.float32)
        top = torch.zeros_like(highest, dtype=torch.int64)
        for start in range(0, len(self.head.weight), WORDS):
            logits = self.logits(states, slice(start, start + WORDS))
            normaliser = torch.logaddexp(normaliser, logits.logsumexp(dim=-1))
            value, token = logits.max(dim=-1)  # the first of several
            top = torch.where(value > highest, token + start, top)
            highest = torch.maximum(highest, value)
        return normaliser, top, highest

    def _layout(self, rows: Rows, system: int) -> tuple[dict, dict]:
        """Return the ropes and masks of rows, which stay the same from a cut to the next."""
        parts = (rows.positions, rows.blocks, rows.places, rows.groups, rows.before)
        known, length, layout = self._last
        if length != system or any(a is not b for a, b in zip(known, parts, strict=True)):
            layout = self._ropes(rows.states, rows.positions), self._masks(rows, system)
            self._last = parts, system, layout
        return layout

    def _ropes(self, states: Tensor, positions: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return cosines and sines [B, 1, T, d] of the rotary positions for each kind of layer."""
        if self.axes == 3 and positions.ndim == 2:
            positions = positions.expand(self.axes, -1, -1)
        rotary, ropes = self.backbone.rotary_emb, {}
        for kind in set(self.kinds):
            more = (kind,) if self._rope_by_kind else ()
            cos, sin = rotary(states, positions, *more)
            ropes[kind] = (cos[:, None], sin[:, None])
        return ropes

    def _masks(self, rows: Rows, system: int) -> dict[str, Tensor]:
        """Return the additive masks [B, 1, T, S + T] of each kind of layer."""
        dtype = rows.states.dtype
        masks = {}
        for kind in set(self.kinds):
            window = self.window if kind == stacks.SLIDING else None
            masks[kind] = additive_mask(rows, system, dtype, window)
        return masks


def _after_attention(layer: Any, mixed: Tensor, states: Tensor) -> Tensor:
    """Return the states after a layer, given its attention's output; `mixed` is overwritten.

    In place where no one else holds the tensor: after the matrix products, memory traffic costs
    most.
    """
    mlp = layer.mlp
    if hasattr(layer, "pre_feedforward_layernorm"):  # Gemma 3: a norm after each half, too
        states = layer.post_attention_layernorm(mixed).add_(states)
        normed = layer.pre_feedforward_layernorm(states)
        gate = mlp.act_fn(mlp.gate_proj(normed))
        mixed = mlp.down_proj(gate.mul_(mlp.up_proj(normed)))
        return layer.post_feedforward_layernorm(mixed).add_(states)
    states = mixed.add_(states)
    normed = layer.post_attention_layernorm(states)
    gate = mlp.act_fn(mlp.gate_proj(normed))
    return mlp.down_proj(gate.mul_(mlp.up_proj(normed))).add_(states)


def _heads(projected: Tensor, attention: nn.Module, norm: nn.Module | None = None) -> Tensor:
    """Return [B, heads, T, d] from [B, T, heads * d], each head's channels normed if `norm`."""
    heads = projected.unflatten(-1, (-1, attention.head_dim))
    return (heads if norm is None else norm(heads)).transpose(1, 2)


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


def _attention(queries: Tensor, keys: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """Return the attention of a few queries, float32 [B, heads, A, S + T]."""
    keys = keys.repeat_interleave(queries.shape[1] // keys.shape[1], dim=1)
    logits = queries @ keys.transpose(2, 3) * scaling + mask
    return logits.softmax(dim=-1, dtype=torch.float32)
