"""The decoder stacks that the engine's loop computes exactly; every other one is refused by name.

The loop in `engine.decoder` calls the parts of a layer, not its `forward`. A layer with a part or
a step that the loop does not know (a scaled residual, a capped logit, experts, a rotation of half
of the channels) would give other logits without a word, so the layers are checked before they run.
Sources: the `forward` methods in transformers 5.23, models llama, mistral, qwen2, qwen2_vl,
qwen2_5_vl, qwen3, qwen3_vl and gemma3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunecal.core.errors import PrunecalError

if TYPE_CHECKING:
    from torch import nn

FULL, SLIDING = "full_attention", "sliding_attention"
LAYERS = {  # folder of transformers.models: the decoder and its layers
    "llama": ("LlamaModel", "LlamaDecoderLayer"),
    "mistral": ("MistralModel", "MistralDecoderLayer"),
    "qwen2": ("Qwen2Model", "Qwen2DecoderLayer"),
    "qwen2_vl": ("Qwen2VLTextModel", "Qwen2VLDecoderLayer"),
    "qwen2_5_vl": ("Qwen2_5_VLTextModel", "Qwen2_5_VLDecoderLayer"),
    "qwen3": ("Qwen3Model", "Qwen3DecoderLayer"),
    "qwen3_vl": ("Qwen3VLTextModel", "Qwen3VLTextDecoderLayer"),
    "gemma3": ("Gemma3TextModel", "Gemma3DecoderLayer"),
}
MODEL = {"embed_tokens", "layers", "norm", "rotary_emb"}
LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
NORMS_AFTER = {"pre_feedforward_layernorm", "post_feedforward_layernorm"}
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
HEAD_NORMS = {"q_norm", "k_norm"}
MLP = {"gate_proj", "up_proj", "down_proj", "act_fn"}
CAPS = ("attn_logit_softcapping", "final_logit_softcapping")
FIXED_ROPES = ("default", "linear", "llama3", "yarn", "dynamic", "longrope")


def refuse_unknown(backbone: Any, head: Any) -> None:
    """Refuse a decoder that the loop would not compute exactly.

    Raises:
        PrunecalError: names the first layer, part or setting that the loop does not know.
    """
    folder = type(backbone).__module__.split(".")[-2:-1]
    model, layer = LAYERS.get("".join(folder), ("", ""))
    _require(type(backbone).__name__ == model, backbone, "is a decoder of another kind")
    _require(_parts(backbone) == MODEL, backbone, _difference(backbone, MODEL))
    for number, block in enumerate(backbone.layers):
        kind = type(block)
        known = (kind.__name__, kind.__module__) == (layer, type(backbone).__module__)
        _require(known, block, f"is the class of layer {number}")
        parts = LAYER | (NORMS_AFTER if model == "Gemma3TextModel" else set())
        _require(_parts(block) == parts, block, _difference(block, parts))
        normed = hasattr(block.self_attn, "q_norm") or hasattr(block.self_attn, "k_norm")
        inner = ATTENTION | (HEAD_NORMS if normed else set())
        _require(_parts(block.self_attn) == inner, block, _difference(block.self_attn, inner))
        _require(_parts(block.mlp) == MLP, block, _difference(block.mlp, MLP))
    _require(getattr(head, "bias", None) is None, head, "has a bias")
    _check_settings(backbone, backbone.config)


def kinds(backbone: Any) -> list[str]:
    """Return the kind of attention of each layer: FULL, or SLIDING within a window."""
    config = backbone.config
    listed = getattr(config, "layer_types", None)
    if listed is None:  # Mistral: a window, if there is one, in every layer
        listed = [SLIDING if window(backbone) else FULL] * len(backbone.layers)
    return list(listed)


def window(backbone: Any) -> int | None:
    """Return how many tokens a query of a sliding layer attends to, itself included."""
    return getattr(backbone.config, "sliding_window", None)


def rope_settings(config: Any) -> list[dict[str, Any]]:
    """Return the settings of rotary positions: one set, or one for each kind of layer."""
    rope = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in rope.values() if isinstance(value, dict)]
    return nested or [rope]


def _check_settings(backbone: Any, config: Any) -> None:
    """Refuse settings that change what a known layer computes, or how it is called."""
    for name in CAPS:
        _require(getattr(config, name, None) is None, backbone, f"has {name}")
    bidirectional = getattr(config, "use_bidirectional_attention", None)
    _require(not bidirectional, backbone, "attends both ways")
    listed = kinds(backbone)
    unknown = set(listed) - {FULL, SLIDING}
    _require(not unknown, backbone, f"has layers of the kind {sorted(unknown)}")
    _require(len(listed) == len(backbone.layers), backbone, "has other layers than layer_types")
    _require(SLIDING not in listed or window(backbone), backbone, "lacks its sliding_window")
    for rope in rope_settings(config):
        kind = rope.get("rope_type", "default")
        _require(kind in FIXED_ROPES, backbone, f"has positions of the kind {kind!r}")
        part = rope.get("partial_rotary_factor", 1)
        _require(part in (None, 1), backbone, "rotates a part of the channels")


def _parts(module: nn.Module) -> set[str]:
    """Return the names of a module's children and of the parameters of its own."""
    own = [name for name, _ in module.named_parameters(recurse=False)]
    return {*own, *(name for name, _ in module.named_children())}


def _difference(module: nn.Module, known: set[str]) -> str:
    parts = _parts(module)
    extra, missing = sorted(parts - known), sorted(known - parts)
    what = type(module).__name__
    return f"has {what} with {', '.join(extra)}" if extra else f"lacks {', '.join(missing)}"


def _require(holds: bool | int | None, module: nn.Module, fault: str) -> None:  # noqa: FBT001
    if not holds:
        known = ", ".join(name for _, name in LAYERS.values())
        raise PrunecalError(
            f"{type(module).__name__} {fault}, which the engine does not compute exactly; the "
            f"decoders that it runs have the layers {known}"
        )
