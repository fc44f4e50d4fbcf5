"""ViP-LLaVA: visual tokens from several layers of a CLIP tower, Llama decoder.

Features are the states of all feature layers, side by side; saliency is the attention from CLS to
each patch in the first of them, the penultimate one, summed over heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunecal.core.errors import PrunecalError
from prunecal.engine.interfaces import Encoded
from prunecal.models._hub import HubModel
from prunecal.models._llava_files import TOWER, refuse_parts
from prunecal.models.llava import Params, cls_attention, most_tokens, small_square
from prunecal.sources.image_files import rgb
from prunecal.storage.files import read_object

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL.Image import Image
    from torch import Tensor

__all__ = ["POSITIONS", "Params", "check", "load", "most_tokens"]

LABEL = "ViP-LLaVA"
MODEL_TYPES = ("vipllava",)
POSITIONS = ("compact", "original")


class VipLlava(HubModel):
    """A loaded model."""

    KINDS = {"vipllava": "VipLlavaForConditionalGeneration"}
    TOWER = TOWER

    def read_config(self, folder: Path) -> Any:
        """Return the configuration of a folder, with the layers that its weights are made for.

        Transformers before 5 ignored `vision_feature_layer` in the file of a ViP-LLaVA, which
        llava-hf/vip-llava-7b-hf has from LLaVA, and read `vision_feature_layers` alone.
        """
        config = super().read_config(folder)
        written = str(read_object(folder / "config.json").get("transformers_version", ""))
        if isinstance(config.vision_feature_layer, int) and written.startswith("4."):
            config.vision_feature_layer = type(config)().vision_feature_layer
        return config

    def check(self, config: Any) -> None:
        """Refuse another number of visual tokens, or feature layers that the tower lacks."""
        super().check(config)
        vision = config.vision_config
        refuse_parts(self.folder, self.processor, vision.image_size)
        self.require_tokens((vision.image_size // vision.patch_size) ** 2)
        layers, depth = config.vision_feature_layer, vision.num_hidden_layers
        listed = layers if isinstance(layers, list | tuple) else [layers]
        if not listed or not all(-depth <= layer <= depth and layer for layer in listed):
            raise PrunecalError(
                f"{self.folder} takes its visual tokens from the layers {layers} of {depth}; give "
                "the model's own config.json"
            )

    def pixels(self, images: Sequence[Image]) -> Tensor:
        """Return pixel values [B, 3, side, side]."""
        prepared = [rgb(image) for image in images]
        if self.settings["image"] == "pad":
            side = self.model.config.vision_config.image_size
            prepared = [small_square(image, self.processor, side) for image in prepared]
        found = self.processor(images=prepared, return_tensors="pt")["pixel_values"]
        return found.to(self.device, self.model.dtype)

    def encode(self, images: Sequence[Image]) -> list[Encoded]:
        """Return the visual tokens of images of any size and their saliency."""
        import torch

        tower, layers = self.model.model.vision_tower, self.model.config.vision_feature_layer
        listed = layers if isinstance(layers, list | tuple) else [layers]
        states = [tower.pre_layrnorm(tower.embeddings(self.pixels(images)))]
        for layer in tower.encoder.layers:
            states.append(layer(states[-1], None))
        features = torch.cat([states[layer][:, 1:] for layer in listed], dim=-1)
        looked = listed[0] % len(states)
        saliency = cls_attention(tower.encoder.layers[looked - 1], states[looked - 1])
        return [Encoded(*image) for image in zip(features, saliency, strict=True)]

    def project(self, features: Tensor) -> Tensor:
        """Return visual tokens [..., H] in the language model's space from features [..., D]."""
        return self.model.model.multi_modal_projector(features)


load = VipLlava
check = VipLlava.check_folder
