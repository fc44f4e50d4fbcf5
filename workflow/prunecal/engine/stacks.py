"""The decoder stacks that the engine's loop computes exactly; every other one is refused by name.

The loop in `engine.decoder` calls the parts of a layer, not its `forward`. A layer with a part or
a step that the loop does not know (a scaled residual, a capped logit, experts, a rotation of half
of the channels) would give other logits without a word, so the layers are checked before they run.
Sources: the `forward` methods in transformers 5.23, models llama, mistral, qwen2, qwen2_vl,
qwen2_5_vl, qwen3, qwen3_vl and gemma3.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from prunecal.core.errors import PrunecalError

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
BY_AXES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")  # positions are time, row and column
WITHOUT_WINDOWS = ("llama", "qwen3_vl")  # whatever their configuration says of windows
CAPS = ("attn_logit_softcapping", "final_logit_softcapping")
FACTORS = (  # of other stacks; a checkpoint that states one was trained with it
    *("attention_multiplier", "embedding_multiplier", "residual_multiplier"),
    *("logits_scaling", "logit_scale"),
)
OTHER_STEPS = (  # of other stacks, likewise
    *("attention_chunk_size", "no_rope_layers", "num_kv_shared_layers"),
    *("qk_layernorm", "use_parallel_residual", "use_qk_norm"),
)
RECORDS = "transformers.utils.output_capturing"  # whose hooks, once asked for, keep what they see
FIXED_ROPES = ("default", "linear", "llama3", "yarn", "dynamic", "longrope")


def refuse_unknown(backbone: Any, head: Any) -> None:
    """Refuse a decoder that the loop would not compute exactly.

    Raises:
        PrunecalError: names the first layer, part or setting that the loop does not know.
    """
    model, layer = LAYERS.get(_stack(backbone), ("", ""))
    _require(type(backbone).__name__ == model, backbone, "is a decoder of another kind")
    _require(_parts(backbone) == MODEL, backbone, _difference(backbone, MODEL))
    attentions: set[nn.Module] = set()  # a cache would keep one layer's keys for both
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
        for module in (block, block.self_attn, block.mlp):
            _refuse_other_forward(module, backbone, f"of layer {number} ")
        shared = block.self_attn in attentions
        _require(not shared, block, f"of layer {number} shares the attention of another")
        attentions.add(block.self_attn)
    _refuse_other_forward(backbone, backbone)
    plain = type(head) is nn.Linear or not isinstance(head, nn.Module)  # its weight tells all
    _require(plain, head, "is a head of another kind")
    _require(getattr(head, "bias", None) is None, head, "has a bias")
    _check_settings(backbone, backbone.config)


def refuse_unknown_config(config: Any) -> None:
    """Refuse the configuration of a decoder that the loop does not know, without building it.

    Raises:
        PrunecalError: names the decoder.
    """
    whole = hasattr(config, "text_config")  # of a multimodal model, not of its decoder
    if whole or _stack(config) not in LAYERS:
        from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

        names = MODEL_MAPPING_NAMES.get(config.model_type) or type(config).__name__
        name = names if isinstance(names, str) else names[0]
        raise PrunecalError(_refusal(name, "is a decoder of another kind"))


def kinds(backbone: Any) -> list[str]:
    """Return the kind of attention of each layer: FULL, or SLIDING within a window."""
    if _stack(backbone) in WITHOUT_WINDOWS:
        return [FULL] * len(backbone.layers)
    if _stack(backbone) == "mistral":  # a window, if there is one, in every layer
        return [SLIDING if window(backbone) else FULL] * len(backbone.layers)
    return list(backbone.config.layer_types)


def axes(backbone: Any) -> int:
    """Return how many positions a token has: 3 with multimodal rotary positions, else 1."""
    return 3 if _stack(backbone) in BY_AXES else 1


def window(backbone: Any) -> int | None:
    """Return how many tokens a query of a sliding layer attends to, itself included."""
    return getattr(backbone.config, "sliding_window", None)


def rope_settings(config: Any) -> list[dict[str, Any]]:
    """Return the settings of rotary positions: one set, or one for each kind of layer."""
    rope = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in rope.values() if isinstance(value, dict)]
    return nested or [rope]


def most_positions(config: Any) -> int | None:
    """Return the tokens that a model was made to read, or None where its config does not tell."""
    positions = getattr(config, "max_position_embeddings", None)
    (rope, *others) = rope_settings(config)
    if positions is not None and not others and rope.get("rope_type") == "linear":
        return int(positions * rope.get("factor", 1))
    limits = [positions, same_angles(config)]  # kinds but linear count them after the scaling
    return min((limit for limit in limits if limit is not None), default=None)


def same_angles(config: Any) -> int | None:
    """Return the tokens beyond which a prompt's length changes all its angles, if it ever does.

    A prompt is computed in parts, whose angles have to be those of the whole.
    """
    limits: list[int | None] = [
        rope.get("original_max_position_embeddings")
        if kind == "longrope"
        else getattr(config, "max_position_embeddings", None)
        for rope in rope_settings(config)
        if (kind := rope.get("rope_type")) in ("dynamic", "longrope")
    ]
    return min((limit for limit in limits if limit is not None), default=None)


def _check_settings(backbone: Any, config: Any) -> None:
    """Refuse settings that change what a known layer computes, or how it is called.

    Also kinds of layers, factors and steps that its class does not read: the weights were trained
    with them, and transformers leaves them out.
    """
    for name in CAPS:
        _require(getattr(config, name, None) is None, backbone, f"has {name}")
    for name in FACTORS:
        _require(getattr(config, name, None) in (None, 1), backbone, f"has {name}")
    for name in OTHER_STEPS:
        _require(not getattr(config, name, None), backbone, f"has {name}")
    causal = getattr(config, "is_causal", True)  # which transformers' masks follow
    bidirectional = getattr(config, "use_bidirectional_attention", None) or not causal
    _require(not bidirectional, backbone, "attends both ways")
    own = kinds(backbone)
    listed = getattr(config, "layer_types", None) or own
    unknown = set(listed) - {FULL, SLIDING}
    _require(not unknown, backbone, f"has layers of the kind {sorted(unknown)}")
    _require(len(listed) == len(backbone.layers), backbone, "has other layers than layer_types")
    _require(list(listed) == own, backbone, "does not read its layer_types")
    _require(SLIDING not in own or window(backbone), backbone, "lacks its sliding_window")
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


def _stack(part: Any) -> str:
    """Return the folder of transformers.models in which the class of a part is defined."""
    return "".join(type(part).__module__.split(".")[-2:-1])


def _refuse_other_forward(module: nn.Module, backbone: nn.Module, where: str = "") -> None:
    """Refuse a module whose forward is not the one that transformers defines beside the backbone.

    The loop calls neither a layer's nor its attention's: another one, or a hook on it, would be
    passed over.
    """
    kind = type(module)
    known = kind.forward.__module__ == kind.__module__ == type(backbone).__module__
    own = "forward" not in module.__dict__
    _require(own and known, module, f"{where}has another forward")
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]  # noqa: SLF001
    _require(
        all(getattr(one, "__module__", "") == RECORDS for one in hooks),
        module,
        f"{where}has hooks on its forward",
    )


def _require(holds: bool | int | None, module: nn.Module, fault: str) -> None:  # noqa: FBT001
    if not holds:
        raise PrunecalError(_refusal(type(module).__name__, fault))


def _refusal(name: str, fault: str) -> str:
    known = ", ".join(layer for _, layer in LAYERS.values())
    return (
        f"{name} {fault}, which the engine does not compute exactly; the decoders that it runs "
        f"have the layers {known}"
    )
