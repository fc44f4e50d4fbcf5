"""LLaVA-1.5 and models like it: CLIP tower, projector, Llama decoder; modules of transformers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from prunecal.core.parameters import Parameters
from prunecal.engine.interfaces import Encoded
from prunecal.engine.similarity import UNIT, exact_similarity
from prunecal.models import _clip_signals as clip_signals
from prunecal.models._checkpoint import load_weights, refuse_unknown_decoder
from prunecal.models._llava_files import read_folder
from prunecal.models._prompting import Prompting
from prunecal.sources.image_files import rgb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch
    from PIL.Image import Image
    from torch import Tensor

    from prunecal.engine.interfaces import Part, Signal

LABEL = "LLaVA-1.5"
MODEL_TYPES = ("llava",)
SIGNALS = (
    *("attention", "cls", "early_attention", "keys", "last_cls_query", "last_keys"),
    "projected_similarity",
    *("image_embeds", "text_embeds", "text_segments"),  # features are states of CLIP's tower
)
LEFT_OUT: dict[Part, tuple[str, ...]] = {  # modules, by the part that is loaded
    "whole": (),
    "vision": ("model.language_model", "lm_head"),
    "language": ("model.vision_tower",),
}


class Params(Parameters):
    """Settings of models like LLaVA-1.5."""

    image: Literal["pad", "crop"] = Field(
        "pad", description="pad images to a square with the mean colour, or crop their centre"
    )


def most_tokens(params: Params) -> None:
    """Return None: all images have the same number of visual tokens."""
    del params


class Llava(Prompting):
    """A loaded model, in the three parts that the stages need.

    Args:
        folder: weights, configuration, tokenizer and image processor in the Hub's layout.
        settings: `visual_tokens`, `template`, `image` and `dtype` of the model's settings.
        device: where to run.
        part: what is loaded, see `ModelFamily.load`.

    Raises:
        PrunecalError: the folder's model has another number of visual tokens than the settings
            say, takes other features from its tower than LLaVA-1.5, or does not hold what the
            model is made of (see `_checkpoint`).
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        device: torch.device,
        part: Part = "whole",
    ) -> None:
        from transformers import LlavaForConditionalGeneration

        from prunecal.engine.decoder import Decoder

        config, self.tokenizer, self.processor = read_folder(folder, settings)
        self.settings, self.device = settings, device
        kind, dtype = LlavaForConditionalGeneration, settings["dtype"]
        self.model = load_weights(kind, folder, config, dtype, device, LEFT_OUT[part])
        if part != "vision":
            self.decoder = Decoder(self.model.model.language_model, self.model.lm_head)

    def pixels(self, images: Sequence[Image]) -> Tensor:
        """Return pixel values [B, 3, side, side], padded to a square as LLaVA-1.5 is evaluated."""
        squares = [self.square(image) for image in images]
        pixels = self.processor(images=squares, return_tensors="pt")["pixel_values"]
        return pixels.to(self.device, self.model.dtype)

    def square(self, image: Image) -> Image:
        """Return an RGB image as the processor gets it: padded, unless the settings say crop."""
        if self.settings["image"] == "crop":
            return rgb(image)
        return small_square(rgb(image), self.processor, self.model.config.vision_config.image_size)

    def encode(self, images: Sequence[Image]) -> list[Encoded]:
        """Return the visual tokens of images of any size and their saliency.

        Features are the tower's hidden states at the model's feature layer (the penultimate one in
        LLaVA-1.5), CLS left out, before the projector; saliency is the attention from CLS to each
        patch in that same layer, after softmax, summed over heads (as SCOPE's official encoder).
        """
        features, saliency = self.encode_pixels(self.pixels(images))
        return [Encoded(*image) for image in zip(features, saliency, strict=True)]

    def encode_signals(
        self, images: Sequence[Image], reads: Sequence[Signal]
    ) -> tuple[list[Encoded], dict[str, Tensor]]:
        """Return what `encode` returns, and further signals of the tower.

        Args:
            images: B images of any size.
            reads: names of signals.

        Returns:
            The visual tokens, and by name: `cls` [B, 1, D], the state of CLS beside the features;
            `keys` [B, N + 1, d], the keys of the feature layer, mean over heads, CLS first;
            `attention` and `early_attention` float32 [B, N], the attention that each patch
            receives in the feature layer and in the layer at three eighths of the depth, mean over
            heads and queries; `last_keys` [B, N + 1, D] and `last_cls_query` [B, 1, D], keys and
            CLS's query of the last layer, not parted into heads; `projected_similarity` float32
            [B, N, N], cosines of the projected tokens in multiples of 2^-23.
        """
        features, saliency, signals = self.signals_of_pixels(self.pixels(images), reads)
        return [Encoded(*image) for image in zip(features, saliency, strict=True)], signals

    def encode_pixels(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return features [B, N, D] and saliency float32 [B, N] from pixels [B, 3, side, side]."""
        features, saliency, _ = self.signals_of_pixels(pixels, ())
        return features, saliency

    def signals_of_pixels(
        self, pixels: Tensor, reads: Sequence[Signal]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return features, saliency and signals, from pixels [B, 3, side, side]."""
        tower = self.model.model.vision_tower
        tower = getattr(tower, "vision_model", tower)  # transformers before 5.20 nests it
        layers = tower.encoder.layers
        last = self.model.config.vision_feature_layer % (len(layers) + 1)
        states = self.embedded(tower, pixels)
        signals = {}
        early = clip_signals.early_layer(len(layers))
        for number, layer in enumerate(layers[: last - 1]):
            if number == early and "early_attention" in reads:
                signals["early_attention"] = clip_signals.received_attention(layer, states)
            states = layer(states, None)
        saliency = cls_attention(layers[last - 1], states)
        if "attention" in reads:
            signals["attention"] = clip_signals.received_attention(layers[last - 1], states)
        if "keys" in reads:
            signals["keys"] = clip_signals.mean_keys(layers[last - 1], states)
        states = layers[last - 1](states, None)
        if "cls" in reads:
            signals["cls"] = states[:, :1].contiguous()
        if "projected_similarity" in reads:
            signals["projected_similarity"] = exact_similarity(self.project(states[:, 1:])) / UNIT
        if {"last_keys", "last_cls_query"} & set(reads):
            final = states
            for layer in layers[last:-1]:
                final = layer(final, None)
            given = clip_signals.undivided(layers[-1], final)
            signals |= {name: values for name, values in given.items() if name in reads}
        return states[:, 1:], saliency, signals

    def embedded(self, tower: Any, pixels: Tensor) -> Tensor:
        """Return the states [B, N + 1, D] that enter the tower's first layer, CLS first."""
        return tower.pre_layrnorm(tower.embeddings(pixels))

    def project(self, features: Tensor) -> Tensor:
        """Return visual tokens [..., H] in the language model's space from features [..., D]."""
        return self.model.model.multi_modal_projector(features)


load = Llava


def check(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuse what loading would refuse, as far as it can be told without weights.

    Raises:
        PrunecalError: as `Llava`.
    """
    from transformers import LlavaForConditionalGeneration as Model

    config, _, _ = read_folder(folder, settings)
    refuse_unknown_decoder(Model, folder, config, "model.language_model")


def small_square(image: Image, processor: Any, side: int) -> Image:
    """Return an RGB image padded with the processor's mean colour to a square of the tower's side.

    Resized as the processor does, which then has nothing to resize: it would hold three more copies
    of all pixels meanwhile.
    """
    from PIL.Image import Resampling

    mean = tuple(int(channel * 255) for channel in processor.image_mean)
    given = processor.resample
    resample = Resampling.BILINEAR if given is None else given  # as transformers takes None
    return pad_to_square(image, mean).resize((side, side), resample)


def pad_to_square(image: Image, colour: tuple[int, ...]) -> Image:
    """Return the image centred on a square of one colour (LLaVA's expand2square)."""
    from PIL import Image

    side = max(image.size)
    if image.size == (side, side):
        return image
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def cls_attention(layer: torch.nn.Module, states: Tensor) -> Tensor:
    """Return the attention from CLS to each patch, float32 [B, N], summed over heads."""
    attention, normed = layer.self_attn, layer.layer_norm1(states)
    heads = (attention.num_heads, attention.head_dim)
    query = attention.q_proj(normed[:, :1]).unflatten(-1, heads).transpose(1, 2)
    keys = attention.k_proj(normed).unflatten(-1, heads).transpose(1, 2)
    logits = query @ keys.transpose(2, 3) / math.sqrt(attention.head_dim)
    weights = logits.float().softmax(dim=-1)
    return weights[:, :, 0, 1:].sum(dim=1)
