"""What Qwen models share: resolution per image, merged patches, positions on three axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from prunecal.core.errors import PrunecalError, brief
from prunecal.core.parameters import Parameters
from prunecal.engine.interfaces import Encoded, ImageBlock
from prunecal.models._hub import HubModel, inputs_of, received
from prunecal.models.llava import pad_to_square
from prunecal.sources.image_files import rgb

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from PIL.Image import Image
    from torch import Tensor

POSITIONS = ("original",)
PATCHES = ("patch_size", "spatial_merge_size", "temporal_patch_size")  # of a tower's configuration
MERGED_TOKENS = False  # a sum of tokens has no row and column


class QwenParams(Parameters):
    """At which resolution images are read."""

    min_pixels: int = Field(3136, ge=1, description="smaller images are enlarged to this many")
    max_pixels: int = Field(1_605_632, ge=1, description="larger images are reduced to this many")
    square: int | None = Field(
        None,
        ge=1,
        description="pad images to a square with the mean colour and resize it to this side, so "
        "that all have equally many tokens; then give visual_tokens",
    )

    @model_validator(mode="after")
    def _limits_in_order(self) -> QwenParams:
        if self.min_pixels > self.max_pixels:
            raise ValueError("min_pixels is above max_pixels; exchange them")
        return self


class QwenVision(HubModel):
    """A Qwen model whose visual tokens are the merger's outputs, in raster order.

    Saliency is the mean attention that a patch receives in the tower's last block that sees the
    whole image, summed over heads, and averaged over the patches of a token: what LightCompress'
    ports of VisionZip and VisPruner, HoloV and HiPrune read where there is no CLS token.
    """

    VISION = ("model.visual",)
    PROCESSOR = ("patch_size", "merge_size", "temporal_patch_size")
    placeholder = "<|vision_start|><|image_pad|><|vision_end|>"

    def check(self, config: Any) -> None:
        """Refuse other patches than the tower's, and a square that they do not fill."""
        super().check(config)
        for name, own in zip(self.PROCESSOR, PATCHES, strict=True):
            stated, expected = getattr(self.processor, name), getattr(config.vision_config, own)
            if stated != expected:
                raise PrunecalError(
                    f"{self.folder}: its image processor has the {name} {brief(stated)}, but its "
                    f"vision tower {expected}; give the model's own image processor"
                )
        side, square = (
            self.processor.patch_size * self.processor.merge_size,
            self.settings["square"],
        )
        if square is None:
            return
        if square % side:
            raise PrunecalError(
                f"models: square: {square} is no multiple of {side}, the pixels along a token; "
                f"give {max(side, round(square / side) * side)}"
            )
        self.require_tokens((square // side) ** 2)

    def pixels(
        self, images: Sequence[Image], min_pixels: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return patches [sum of patches, values] and grids int64 [B, 3] of images.

        Images with fewer than `min_pixels`, by default that of the settings, are enlarged.

        Raises:
            PrunecalError: an image is too long and narrow for the model.
        """
        square = self.settings["square"]
        size = {
            "shortest_edge": min_pixels or self.settings["min_pixels"],
            "longest_edge": self.settings["max_pixels"],
        }
        prepared = [rgb(image) for image in images]
        if square is not None:
            mean = tuple(int(channel * 255) for channel in self.processor.image_mean)
            prepared = [self._resized(pad_to_square(image, mean), square) for image in prepared]
            size = {"shortest_edge": square**2, "longest_edge": square**2}
        try:
            found = self.processor(images=prepared, size=size, return_tensors="pt")
        except ValueError as error:
            raise PrunecalError(
                f"an image cannot be prepared for the model ({error}); crop it"
            ) from error
        pixels = found["pixel_values"].to(self.device, self.model.dtype)
        return pixels, found["image_grid_thw"].to(self.device)

    def encode(self, images: Sequence[Image]) -> list[Encoded]:
        """Return the visual tokens of images of any size, their saliency and their grids."""
        return self.encode_pixels(*self.pixels(images))

    def encode_smaller(self, images: Sequence[Image], tokens: Sequence[int]) -> list[Encoded]:
        """Return what `encode` does of images reduced to about so many tokens each, bicubic.

        An image keeps its shape, its sides rounded to whole tokens, and has one at least.
        """
        from PIL.Image import Resampling

        side = self.processor.patch_size * self.processor.merge_size
        reduced = []
        for image, count in zip(images, tokens, strict=True):
            scale = math.sqrt(count * side**2 / (image.width * image.height))
            width, height = (max(1, round(edge * scale)) for edge in image.size)
            reduced.append(rgb(image).resize((width, height), Resampling.BICUBIC))
        return self.encode_pixels(*self.pixels(reduced, side**2))

    def encode_pixels(self, pixels: Tensor, grids: Tensor) -> list[Encoded]:
        """Return what `encode` returns, from patches and grids as `pixels` gives them."""
        import torch

        tower = self.model.model.visual
        whole = set(getattr(tower, "fullatt_block_indexes", ())) & set(range(len(tower.blocks)))
        attention = tower.blocks[max(whole) if whole else -1].attn
        with inputs_of(attention) as seen:
            output = tower(pixels, grid_thw=grids, return_dict=True)
        merge = tower.spatial_merge_size**2
        counts = (grids.prod(dim=1) // merge).tolist()
        saliency = self._in_order(self._received(attention, seen).view(-1, merge).mean(1), grids)
        features = output.pooler_output
        if not torch.is_tensor(features):
            features = torch.cat(list(features))
        deep = [layer if torch.is_tensor(layer) else torch.cat(list(layer)) for layer in
                getattr(output, "deepstack_features", None) or ()]  # fmt: skip
        native = self.settings["square"] is None
        grid = (grids[:, 1:] // tower.spatial_merge_size).tolist()
        layouts = [tuple(sides) if native else () for sides in grid]
        grids = [(layout,) if layout else () for layout in layouts]
        of_layers = [layer.split(counts) for layer in deep]
        deep_of = list(zip(*of_layers, strict=True)) or [()] * len(counts)
        parts = (features.split(counts), saliency.split(counts), layouts, deep_of, grids)
        return [Encoded(*part) for part in zip(*parts, strict=True)]

    def block(self, layout: Sequence[int], tokens: int) -> ImageBlock:
        """Return the tokens of an image, whose positions are time, row and column."""
        import torch

        rows, columns = layout or (math.isqrt(tokens), math.isqrt(tokens))
        row = torch.arange(rows).repeat_interleave(columns)
        column = torch.arange(columns).repeat(rows)
        positions = torch.stack((torch.zeros_like(row), row, column))
        return ImageBlock([None] * tokens, positions, max(rows, columns))

    def _resized(self, image: Image, side: int) -> Image:
        from PIL.Image import Resampling

        return image.resize((side, side), Resampling.BICUBIC)

    def _received(self, attention: torch.nn.Module, seen: dict[str, Any]) -> Tensor:
        """Return the attention that each patch receives from those of its image, float32 [T]."""
        import torch

        states, ends = seen.get("hidden_states", seen.get("first")), seen["cu_seqlens"].tolist()
        packed = attention.qkv(states).reshape(len(states), 3, attention.num_heads, -1)
        queries, keys, _ = packed.permute(1, 2, 0, 3).unbind(0)  # [heads, T, d]
        cos, sin = seen["position_embeddings"]
        queries, keys = (
            _rotated(part.float(), cos.float(), sin.float()) for part in (queries, keys)
        )
        parts = []
        for start, end in zip(ends, ends[1:], strict=False):
            image = slice(start, end)
            parts.append(received(queries[:, image], keys[:, image], attention.scaling))
        return torch.cat(parts)

    def _in_order(self, saliency: Tensor, grids: Tensor) -> Tensor:
        """Return the tokens' saliency in raster order; the tower may have another one inside."""
        import torch

        tower = self.model.model.visual
        if not hasattr(tower, "window_size"):
            return saliency
        from transformers.vision_utils import get_vision_window_index

        sizes = tower.spatial_merge_size, tower.window_size, tower.patch_size
        order, _ = get_vision_window_index(grids, *sizes)
        return saliency[torch.argsort(order)]


def _rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    import torch

    half = states.shape[-1] // 2
    turned = torch.cat((-states[..., half:], states[..., :half]), dim=-1)
    return states * cos + turned * sin
