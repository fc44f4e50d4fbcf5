"""The files of a LLaVA beside its weights, and which of them the family cannot run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunecal.core.errors import PrunecalError, brief
from prunecal.models._checkpoint import readable
from prunecal.models._llama_ids import refuse_other_ids
from prunecal.models._processors import (
    read_processors,
    refuse_larger_vocabulary,
    refuse_other_pixels,
    refuse_unknown_vision,
)
from prunecal.study.prompts import IMAGE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from transformers import LlavaConfig

TOWER = "clip_vision_model"
SIZES = {  # counts in config.json that nothing could be computed with if they were not positive
    "vision_config": ("image_size", "patch_size", "num_attention_heads", "num_hidden_layers"),
    "text_config": ("max_position_embeddings", "num_attention_heads", "num_key_value_heads"),
}


def read_folder(folder: Path, settings: Mapping[str, Any]) -> tuple[LlavaConfig, Any, Any]:
    """Return a model's configuration, tokenizer and image processor, which fit the settings.

    Raises:
        PrunecalError: they do not (see `llava.Llava`); weights are not looked at.
    """
    from transformers import LlavaConfig

    from prunecal.engine import stacks

    with readable(folder, "configuration"):
        config = LlavaConfig.from_pretrained(folder, local_files_only=True)
    stacks.refuse_unknown_config(config.text_config)
    refuse_unknown_vision(folder, config, TOWER)
    _check_config(folder, config, settings["visual_tokens"])
    tokenizer, processor = read_processors(folder)
    _check_tokenizer(folder, tokenizer, config)
    refuse_other_ids(folder, tokenizer, settings["template"])
    refuse_parts(folder, processor, config.vision_config.image_size)
    refuse_other_pixels(folder, processor, config.vision_config.image_size)
    return config, tokenizer, processor


def _check_config(folder: Path, config: LlavaConfig, visual_tokens: int | None) -> None:
    """Refuse a model that does not fit, before its weights are loaded."""
    vision = config.vision_config
    for part, name in ((part, name) for part, names in SIZES.items() for name in names):
        size = getattr(getattr(config, part), name)
        if not isinstance(size, int) or size < 1:
            raise PrunecalError(
                f"{folder}: config.json says {name}: {brief(size)} in {part}; give the model's own "
                "config.json"
            )
    tokens = (vision.image_size // vision.patch_size) ** 2
    if visual_tokens is not None and tokens != visual_tokens:  # None: images differ in them
        raise PrunecalError(
            f"{folder} has {tokens} visual tokens per image but the config says "
            f"visual_tokens: {visual_tokens}; correct it in `models`"
        )
    layer, choice = config.vision_feature_layer, config.vision_feature_select_strategy
    depth = vision.num_hidden_layers
    if not isinstance(layer, int) or not 1 <= abs(layer) <= depth or choice != "default":
        raise PrunecalError(
            f"{folder} takes its visual tokens from layer {brief(layer)} of {depth} with strategy "
            f"{choice!r}; the model family llava supports a single layer without CLS "
            '("default"); use another model'
        )


def _check_tokenizer(folder: Path, tokenizer: Any, config: LlavaConfig) -> None:
    """Refuse a tokenizer of another model: another placeholder for images, or unknown ids."""
    image_id, image_token = tokenizer.convert_tokens_to_ids(IMAGE), config.image_token_id
    if image_id != image_token:
        raise PrunecalError(
            f"{folder}: its tokenizer has {image_id} as the id of {IMAGE}, but config.json says "
            f"{brief(image_token)}; give the model's own tokenizer and config.json"
        )
    if IMAGE not in tokenizer.get_added_vocab():  # else it is cut as any text is
        raise PrunecalError(
            f"{folder}: its tokenizer knows {IMAGE} as plain text, not as a token of its own; give "
            "the model's own tokenizer files"
        )
    refuse_larger_vocabulary(folder, tokenizer, config)


def refuse_parts(folder: Path, processor: Any, side: int) -> None:
    """Refuse an image processor that shows the tower a part of an image."""
    sizes = [processor.size, *([processor.crop_size] if processor.do_center_crop else [])]
    edges = {edge for size in sizes for edge in dict(size or {}).values() if edge is not None}
    if not processor.do_resize or not edges <= {side}:
        raise PrunecalError(
            f"{folder}: its image processor shows the vision tower a part of an image or a larger "
            f"one (sizes {brief(sorted(map(str, edges)))}), but the tower takes {side} x {side} "
            "pixels of the whole; give the model's own image processor"
        )
