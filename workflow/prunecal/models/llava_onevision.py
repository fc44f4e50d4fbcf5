"""LLaVA-OneVision, single images: a base image and tiles of high resolution, SigLIP tower, Qwen2.

A large grid of tiles is interpolated after the projector, so features are the projected tokens.
Saliency is the mean attention that a patch receives in the feature layer within its tile, summed
over heads, and interpolated as the features are.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from prunecal.core.errors import PrunecalError, brief
from prunecal.engine.interfaces import Encoded
from prunecal.models._hub import heads, received
from prunecal.models.llava_next import MERGED_TOKENS, POSITIONS, LlavaNext, NextParams

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["MERGED_TOKENS", "POSITIONS", "Params", "check", "load", "most_tokens"]

LABEL = "LLaVA-OneVision"
MODEL_TYPES = ("llava_onevision",)
LARGEST = 1.1  # times the side of the largest grid that is not interpolated


class Params(NextParams):
    """Which tokens of an image reach the language model."""


def most_tokens(params: Params) -> int:
    """Return the most tokens of an image: a base image and nine tiles of 27 x 27, enlarged."""
    del params
    return 729 + math.ceil(9 * 729 * LARGEST**2)


class LlavaOnevision(LlavaNext):
    """A loaded model."""

    KINDS = {"llava_onevision": "LlavaOnevisionForConditionalGeneration"}
    VISION = ("model.vision_tower", "model.multi_modal_projector")
    TOWER = "siglip_vision_model"
    SELECTS = "full"

    def check(self, config: Any) -> None:
        """Refuse also a model that does not say how large a grid of tiles may be."""
        super().check(config)
        ratio = config.vision_aspect_ratio
        if not re.fullmatch(r"anyres_max_[1-9]\d*", str(ratio)):
            raise PrunecalError(
                f"{self.folder}: config.json has the vision_aspect_ratio {brief(ratio)}; the model "
                'family llava-onevision supports "anyres_max_" and a number; use another model'
            )

    def encode_pixels(self, pixels: Tensor, sizes: Tensor) -> Encoded:
        """Return the visual tokens of one image, from what `pixels` gives."""
        import torch

        core, config = self.model.model, self.model.config
        tower = getattr(core.vision_tower, "vision_model", core.vision_tower)
        layers = tower.encoder.layers
        last = config.vision_feature_layer % (len(layers) + 1)
        states = tower.embeddings(pixels[0])
        for layer in layers[: last - 1]:
            states = layer(states, None)
        saliency = _received(layers[last - 1], states)
        features = core.multi_modal_projector(layers[last - 1](states, None))
        grid = self._map(features[1:], sizes[0].tolist())
        marks = self._map(saliency[1:, :, None], sizes[0].tolist())
        base, rows, columns = features.shape[1], *grid.shape[1:]
        return Encoded(
            torch.cat((features[0], grid.flatten(1).T)),
            torch.cat((saliency[0], marks.flatten())),
            (base, rows, columns),
            grids=((math.isqrt(base), math.isqrt(base)), (rows, columns)),
        )

    def project(self, features: Tensor) -> Tensor:
        """Return the features, which are projected."""
        return features

    def _map(self, tiles: Tensor, size: list[int]) -> Tensor:
        """Return values of tiles [tiles, N, X] as one grid [X, rows, columns]."""
        from torch.nn import functional

        grid = self._grid_of(tiles, size)
        most = int(self.model.config.vision_aspect_ratio.removeprefix("anyres_max_"))
        rows, columns = grid.shape[1:]
        ratio = math.sqrt(rows * columns / (most * tiles.shape[1]))
        if ratio <= LARGEST:
            return grid
        smaller = [int(rows // ratio), int(columns // ratio)]
        if min(smaller) < 1:
            raise PrunecalError(
                f"an image of {size[1]} x {size[0]} pixels is too long and narrow for the model's "
                f"grid of at most {most} tiles; crop it"
            )
        return functional.interpolate(grid[None], smaller, mode="bilinear")[0]


def _received(layer: torch.nn.Module, states: Tensor) -> Tensor:
    """Return the attention that each patch of a tile receives, float32 [tiles, N]."""
    attention, normed = layer.self_attn, layer.layer_norm1(states)
    queries, keys = (
        heads(project(normed), attention.num_heads)
        for project in (attention.q_proj, attention.k_proj)
    )
    return received(queries, keys, attention.head_dim**-0.5)


load = LlavaOnevision
check = LlavaOnevision.check_folder
