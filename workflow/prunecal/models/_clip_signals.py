"""What strategies read of CLIP's vision tower beside its features, from a layer and its input."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

EARLY, OFFICIAL_DEPTH = 9, 24  # HiPrune's "layer 9" of CLIP ViT-L


def early_layer(depth: int) -> int:
    """Return the index of the layer that stands where layer 9 of 24 stands."""
    return max(0, int(EARLY * depth / OFFICIAL_DEPTH + 0.5) - 1)


def received_attention(layer: nn.Module, states: Tensor) -> Tensor:
    """Return the attention that patches receive, mean over heads and queries, float32 [B, N]."""
    import torch

    attention, normed = layer.self_attn, layer.layer_norm1(states)
    heads = (attention.num_heads, attention.head_dim)
    queries, keys = (
        project(normed).unflatten(-1, heads).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj)
    )
    scale = 1 / math.sqrt(attention.head_dim)
    received = [  # an image at a time: a map of all queries is large
        (query @ key.transpose(1, 2) * scale).float().softmax(dim=-1).mean(dim=(0, 1))[1:]
        for query, key in zip(queries, keys, strict=True)
    ]
    return torch.stack(received)


def mean_keys(layer: nn.Module, states: Tensor) -> Tensor:
    """Return the layer's keys, mean over heads, [B, N + 1, d]."""
    attention = layer.self_attn
    keys = attention.k_proj(layer.layer_norm1(states))
    return keys.unflatten(-1, (attention.num_heads, attention.head_dim)).mean(dim=2)


def undivided(layer: nn.Module, states: Tensor) -> dict[str, Tensor]:
    """Return the keys [B, N + 1, D] and CLS's query [B, 1, D] of a layer, not parted into heads."""
    attention, normed = layer.self_attn, layer.layer_norm1(states)
    return {
        "last_keys": attention.k_proj(normed),
        "last_cls_query": attention.q_proj(normed[:, :1]),
    }
