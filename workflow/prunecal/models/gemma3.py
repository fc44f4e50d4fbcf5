"""Gemma 3 with images: averaged patches of a SigLIP tower, windows in most decoder layers.

The tokens of an image attend to each other both ways. Pan and scan stays off, as it is by default.
Saliency is the mean attention that a patch receives in the tower's last layer, summed over heads
and averaged over the patches of a token.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from prunecal.core.parameters import Parameters
from prunecal.engine.interfaces import Encoded
from prunecal.models._hub import HubModel, heads, inputs_of, pooled, received
from prunecal.sources.image_files import rgb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image
    from torch import Tensor

__all__ = ["POSITIONS", "Params", "check", "load"]

LABEL = "Gemma 3"
MODEL_TYPES = ("gemma3",)
POSITIONS = ("compact", "original")


class Params(Parameters):
    """Gemma 3 has nothing to set."""


class Gemma3(HubModel):
    """A loaded model."""

    KINDS = {"gemma3": "Gemma3ForConditionalGeneration"}
    VISION = ("model.vision_tower", "model.multi_modal_projector")
    TOWER = "siglip_vision_model"
    # the line breaks merge with others of the prompt, so they are tokenized with them
    placeholder = "\n\n<start_of_image><image_soft_token><end_of_image>\n\n"
    both_ways = True

    def check(self, config: Any) -> None:
        """Refuse another number of visual tokens."""
        super().check(config)
        self.require_tokens(config.mm_tokens_per_image)

    def pixels(self, images: Sequence[Image]) -> Tensor:
        """Return pixel values [B, 3, side, side]."""
        prepared = [rgb(image) for image in images]
        found = self.processor(images=prepared, do_pan_and_scan=False, return_tensors="pt")
        return found["pixel_values"].to(self.device, self.model.dtype)

    def encode(self, images: Sequence[Image]) -> list[Encoded]:
        """Return the visual tokens of images of any size and their saliency."""
        core = self.model.model
        tower = getattr(core.vision_tower, "vision_model", core.vision_tower)
        attention = tower.encoder.layers[-1].self_attn
        with inputs_of(attention) as seen:
            output = core.get_image_features(self.pixels(images), return_dict=True)
        states = seen.get("hidden_states", seen.get("first"))
        queries, keys = (
            heads(project(states), attention.num_heads)
            for project in (attention.q_proj, attention.k_proj)
        )
        saliency = received(queries, keys, attention.head_dim**-0.5)
        features = output.pooler_output
        merged = pooled(saliency, math.isqrt(saliency.shape[1] // features.shape[1]))
        return [Encoded(*image) for image in zip(features, merged, strict=True)]


load = Gemma3
check = Gemma3.check_folder
