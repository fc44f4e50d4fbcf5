"""LLaVA-NeXT (LLaVA-1.6): a base image and tiles of high resolution, CLIP tower, Llama or Mistral.

The prompt has the base image in raster order, then the tiles as one grid, row by row, each row
ended by a newline embedding, which is no visual token: it counts in no budget. Of the grid, rows or
columns of padding are left out. Papers differ: VisPruner and CDPruner keep the padding and leave
out newlines (`unpad: false`, `newline: drop`), SCOPE and VisionZip drop newlines when they prune
and give every tile the same budget (`per: tile`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from prunecal.core.errors import PrunecalError, brief
from prunecal.core.parameters import Parameters
from prunecal.engine.interfaces import Encoded, ImageBlock
from prunecal.models._checkpoint import readable
from prunecal.models._hub import HubModel
from prunecal.models.llava import cls_attention
from prunecal.sources.image_files import rgb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image
    from torch import Tensor

LABEL = "LLaVA-NeXT"
MODEL_TYPES = ("llava_next",)
POSITIONS = ("compact", "original")
MERGED_TOKENS = False  # newlines stand between rows
NEWLINE = -1  # stands for the newline embedding among token ids


class NextParams(Parameters):
    """Which tokens of an image with tiles reach the language model."""

    unpad: bool = Field(True, description="leave out the tiles' rows or columns of padding")
    newline: Literal["keep", "row", "drop"] = Field(
        "keep",
        description="newlines when tokens are dropped: all stay, those of rows with a kept token, "
        "or none",
    )


class Params(NextParams):
    """Which tokens of an image reach the language model."""

    per: Literal["image", "tile"] = Field(
        "image",
        description="what tokens are ranked within: the image, or each tile, whose orders then "
        "take turns, so that a budget keeps as many tokens of every tile",
    )


def most_tokens(params: Params) -> int:
    """Return the most tokens of an image: a base image and four tiles of 24 x 24."""
    del params
    return 5 * 24**2


class LlavaNext(HubModel):
    """A loaded model.

    Features are the tower's hidden states at the model's feature layer, before the projector, and
    saliency the attention from CLS to each patch in that layer, summed over heads, in each tile.
    """

    KINDS = {"llava_next": "LlavaNextForConditionalGeneration"}
    PROCESSOR = ("image_grid_pinpoints",)
    TOWER = "clip_vision_model"
    SELECTS = "default"  # without CLS, where there is one

    def check(self, config: Any) -> None:
        """Refuse a model that takes features of several layers, or whose tiles are others."""
        super().check(config)
        layer, choice = config.vision_feature_layer, config.vision_feature_select_strategy
        depth = config.vision_config.num_hidden_layers
        if not isinstance(layer, int) or not 1 <= abs(layer) <= depth or choice != self.SELECTS:
            raise PrunecalError(
                f"{self.folder} takes its visual tokens from layer {brief(layer)} of {depth} with "
                f"strategy {choice!r}; models of type {config.model_type} are supported with a "
                f'single layer and "{self.SELECTS}"; use another model'
            )
        own, given = config.image_grid_pinpoints, self.processor.image_grid_pinpoints
        with readable(self.folder, "configuration"):
            same = list(map(list, own)) == list(map(list, given))
        if not same:  # of two that fit an image equally, the first is taken
            raise PrunecalError(
                f"{self.folder}: its image processor cuts tiles for the sizes {brief(given)}, but "
                f"config.json says {brief(own)}; give the model's own image processor"
            )

    def pixels(self, image: Image) -> tuple[Tensor, Tensor]:
        """Return an image's base and tiles [1, tiles + 1, 3, side, side], and its size [1, 2]."""
        found = self.processor(images=[rgb(image)], return_tensors="pt")
        import torch

        sizes = torch.as_tensor([list(map(int, size)) for size in found["image_sizes"]])
        return found["pixel_values"].to(self.device, self.model.dtype), sizes

    def encode(self, images: Sequence[Image]) -> list[Encoded]:
        """Return the visual tokens of images, in the order of the prompt, and their saliency."""
        return [self.encode_pixels(*self.pixels(image)) for image in images]

    def encode_pixels(self, pixels: Tensor, sizes: Tensor) -> Encoded:
        """Return what `encode` returns of one image, from what `pixels` gives."""
        import torch

        config, tower = self.model.config, self.model.model.vision_tower
        layers = tower.encoder.layers
        last = config.vision_feature_layer % (len(layers) + 1)
        states = tower.pre_layrnorm(tower.embeddings(pixels[0]))
        for layer in layers[: last - 1]:
            states = layer(states, None)
        saliency = cls_attention(layers[last - 1], states)
        features = layers[last - 1](states, None)[:, 1:]
        places = torch.arange(saliency.numel(), device=saliency.device).view(saliency.shape)
        grid = self._grid_of(places[1:, :, None], sizes[0].tolist())[0]
        order = torch.cat((places[0], grid.flatten()))
        base, rows, columns = places.shape[1], *grid.shape
        return Encoded(
            features.flatten(0, 1)[order],
            saliency.flatten()[order],
            (base, rows, columns),
            grids=((math.isqrt(base), math.isqrt(base)), (rows, columns)),
            tiles=(order // base).int() if self.settings["per"] == "tile" else None,
        )

    def project(self, features: Tensor) -> Tensor:
        """Return visual tokens [..., H] in the language model's space from features [..., D]."""
        return self.model.model.multi_modal_projector(features)

    def block(self, layout: Sequence[int], tokens: int) -> ImageBlock:
        """Return the tokens of an image: its base, then rows that end with newlines."""
        import torch

        base, rows, columns = layout
        del tokens  # they are those of the layout
        glue: list[int | None] = [None] * base
        spans, first = {}, base
        for _ in range(rows):
            glue += [None] * columns
            if self.settings["newline"] != "keep":
                kept = self.settings["newline"] == "row"
                spans[len(glue)] = (first, first + columns) if kept else (0, 0)
            glue.append(NEWLINE)
            first += columns
        return ImageBlock(glue, torch.arange(len(glue))[None], len(glue), spans)

    def embed_glue(self, tokens: Tensor) -> Tensor:
        """Return embeddings [..., H] of text and of newlines."""
        newline = (tokens == NEWLINE)[..., None]
        embedded = self.decoder.embed(tokens.clamp(min=0))
        return embedded.where(~newline, self.model.model.image_newline.to(embedded))

    def _grid_of(self, tiles: Tensor, size: list[int]) -> Tensor:
        """Return values of tiles [tiles, N, X] as one grid [X, rows, columns], less its padding."""
        from transformers.models.llava_next import modeling_llava_next as next_code

        config = self.model.config
        side = config.vision_config.image_size
        rows, columns = next_code.get_anyres_image_grid_shape(
            size, config.image_grid_pinpoints, side
        )
        patches = side // config.vision_config.patch_size
        grid = tiles.view(rows, columns, patches, patches, -1).permute(4, 0, 2, 1, 3)
        grid = grid.reshape(-1, rows * patches, columns * patches)
        return next_code.unpad_image(grid, size) if self.settings["unpad"] else grid


load = LlavaNext
check = LlavaNext.check_folder
