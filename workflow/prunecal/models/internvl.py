"""InternVL3 and InternVL3.5 in transformers' own format: tiles and a thumbnail, merged patches.

The thumbnail is the last tile. Saliency is the attention from CLS to each patch in the tower's last
layer, summed over heads and averaged over the patches of a token.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from prunecal.core.errors import PrunecalError
from prunecal.core.parameters import Parameters
from prunecal.engine.interfaces import Encoded
from prunecal.models._hub import HubModel, heads, inputs_of, pooled
from prunecal.sources.image_files import rgb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image
    from torch import Tensor

__all__ = ["POSITIONS", "Params", "check", "load", "most_tokens"]

LABEL = "InternVL3"
MODEL_TYPES = ("internvl",)
POSITIONS = ("compact", "original")
TOKENS = 256  # of a tile of 448 pixels


class Params(Parameters):
    """Into how many tiles an image is cut."""

    min_tiles: int = Field(1, ge=1, description="fewest tiles, the thumbnail not counted")
    max_tiles: int = Field(12, ge=1, description="most tiles, the thumbnail not counted")

    @model_validator(mode="after")
    def _limits_in_order(self) -> Params:
        if self.min_tiles > self.max_tiles:
            raise ValueError("min_tiles is above max_tiles; exchange them")
        return self


def most_tokens(params: Params) -> int:
    """Return the most tokens of an image."""
    return TOKENS * (params.max_tiles + (params.max_tiles > 1))


class InternVL(HubModel):
    """A loaded model."""

    KINDS = {"internvl": "InternVLForConditionalGeneration"}
    VISION = ("model.vision_tower", "model.multi_modal_projector")
    PROCESSOR = ("crop_to_patches",)
    TOWER = "internvl_vision"
    placeholder = "<img><IMG_CONTEXT></img>"

    def check(self, config: Any) -> None:
        """Refuse a model that takes its features from another layer than the last."""
        super().check(config)
        layer, choice = config.vision_feature_layer, config.vision_feature_select_strategy
        if layer != -1 or choice != "default":
            raise PrunecalError(
                f"{self.folder} takes its visual tokens from layer {layer} with strategy "
                f"{choice!r}; the model family internvl supports the last one without CLS "
                '("default"); use another model'
            )

    def pixels(self, image: Image) -> Tensor:
        """Return the tiles of an image [tiles, 3, side, side]."""
        found = self.processor(
            images=[rgb(image)],
            crop_to_patches=True,  # else the image processor makes a single tile
            min_patches=self.settings["min_tiles"],
            max_patches=self.settings["max_tiles"],
            return_tensors="pt",
        )
        return found["pixel_values"].to(self.device, self.model.dtype)

    def encode(self, images: Sequence[Image]) -> list[Encoded]:
        """Return the visual tokens of images, tile by tile, and their saliency."""
        return [self.encode_pixels(self.pixels(image)) for image in images]

    def encode_pixels(self, pixels: Tensor) -> Encoded:
        """Return what `encode` returns of one image, from its tiles."""
        attention = self.model.model.vision_tower.encoder.layer[-1].attention
        with inputs_of(attention) as seen:
            output = self.model.model.get_image_features(pixels, return_dict=True)
        states = seen.get("hidden_states", seen.get("first"))
        queries, keys = (
            heads(norm(project(states)), attention.num_heads)
            for norm, project in (
                (attention.q_norm, attention.q_proj),
                (attention.k_norm, attention.k_proj),
            )
        )
        logits = queries[:, :, :1] @ keys.transpose(2, 3) * attention.scale
        saliency = logits.float().softmax(dim=-1)[:, :, 0, 1:].sum(dim=1)
        merge = round(1 / self.model.config.downsample_ratio)
        features = output.pooler_output
        tiles, side = len(pixels), math.isqrt(features.shape[1])
        merged = pooled(saliency, merge).flatten()
        layout, grids = (tiles, 1, 1), ((side, side),) * tiles
        return Encoded(features.flatten(0, 1), merged, layout, grids=grids)


load = InternVL
check = InternVL.check_folder
