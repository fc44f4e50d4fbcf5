"""LLaVA on pictures in their own shape: one visual token for each patch, up to the trained square.

No published model reads pictures so; it is how the embedded model gets images that differ in their
numbers of tokens. A picture stands at the top left of the square that the tower was trained on, and
its patches have the positions that they have there; what the picture lacks is not there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic import Field

from prunecal.core.errors import PrunecalError
from prunecal.core.parameters import Parameters
from prunecal.engine.interfaces import Encoded
from prunecal.models.llava import Llava, check
from prunecal.sources.image_files import rgb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image
    from torch import Tensor

__all__ = ["Params", "check", "load", "most_tokens"]

LABEL = "LLaVA, pictures in their own shape"
MODEL_TYPES = ("llava",)


class Params(Parameters):
    """Settings of a LLaVA on pictures in their own shape."""

    patches: int = Field(576, ge=1, description="patches of the square that the tower was made for")


def most_tokens(params: Params) -> int:
    """Return the patches of the whole square."""
    return params.patches


class NativeLlava(Llava):
    """A loaded model."""

    def encode(self, images: Sequence[Image]) -> list[Encoded]:
        """Return the visual tokens of images, their saliency and their grids."""
        return [self._encoded(rgb(image)) for image in images]

    def _encoded(self, image: Image) -> Encoded:
        """Encode one image.

        Raises:
            PrunecalError: its sides are no whole patches, or longer than the tower's square.
        """
        vision = self.model.config.vision_config
        columns, rows = (side // vision.patch_size for side in image.size)
        broken = any(side % vision.patch_size for side in image.size)
        if broken or max(image.size) > vision.image_size:
            raise PrunecalError(
                f"an image has {image.width} x {image.height} pixels, but models of the family "
                f"llava-native read patches of {vision.patch_size} up to a square of "
                f"{vision.image_size}; use the family llava, which resizes images"
            )
        inputs = self.processor(
            images=[image], do_resize=False, do_center_crop=False, return_tensors="pt"
        )
        pixels = inputs["pixel_values"].to(self.device, self.model.dtype)
        features, saliency = self.encode_pixels(pixels)
        grid = rows, columns
        return Encoded(features[0], saliency[0], grid, grids=(grid,))

    def embedded(self, tower: Any, pixels: Tensor) -> Tensor:
        """Return the states [B, N + 1, D] that enter the tower's first layer."""
        import torch

        table = tower.embeddings.position_embedding.weight
        side = math.isqrt(len(table) - 1)
        patches = tower.embeddings.patch_embedding(pixels)  # [B, D, rows, columns]
        rows, columns = patches.shape[2:]
        positions = table[1:].view(side, side, -1)[:rows, :columns].flatten(0, 1)
        cls = (tower.embeddings.class_embedding + table[0]).expand(len(pixels), 1, -1)
        states = torch.cat((cls, patches.flatten(2).transpose(1, 2) + positions), dim=1)
        return tower.pre_layrnorm(states)


load = NativeLlava
