"""Idefics3 and SmolVLM: tiles in rows and columns, then the whole image, with text between them.

That text (which tile follows, line breaks) is glue: it stays when visual tokens are dropped.
Saliency is the mean attention that a patch receives in the tower's last layer, summed over heads
and averaged over the patches of a token.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic import Field

from prunecal.core.errors import PrunecalError
from prunecal.core.parameters import Parameters
from prunecal.engine.interfaces import Encoded, ImageBlock
from prunecal.models._hub import HubModel, heads, inputs_of, pooled, received
from prunecal.sources.image_files import rgb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image
    from torch import Tensor

__all__ = ["MERGED_TOKENS", "POSITIONS", "Params", "check", "load", "most_tokens"]

LABEL = "Idefics3"
MODEL_TYPES = ("idefics3", "smolvlm")
POSITIONS = ("compact", "original")
MERGED_TOKENS = False  # text stands between tiles
FAKE = "<fake_token_around_image>"
SIDE, TOKENS, LONGEST_EDGE = 364, 169, 4 * 364  # of Idefics3-8B; of SmolVLM 384, 81 or 512, 64


class Params(Parameters):
    """Into how many tiles an image is cut."""

    split: bool = Field(True, description="cut images into tiles; else the whole image alone")
    longest_edge: int | None = Field(
        None, ge=1, description="pixels of the longer side before tiles are cut; else the model's"
    )


def most_tokens(params: Params) -> int:
    """Return a bound of the tokens of an image, for the checkpoint with most tokens of a tile."""
    edge = params.longest_edge or LONGEST_EDGE
    return TOKENS * (1 + math.ceil(edge / SIDE) ** 2 if params.split else 1)


class Idefics3(HubModel):
    """A loaded model."""

    KINDS = {
        "idefics3": "Idefics3ForConditionalGeneration",
        "smolvlm": "SmolVLMForConditionalGeneration",
    }
    VISION = ("model.vision_model", "model.connector")
    LANGUAGE = ("model.text_model", "lm_head")
    TEXT = "model.text_model"
    PROCESSOR = ("do_image_splitting", "max_image_size")

    without_image = " "  # "User: " and the text, where "User:" precedes an image

    @property
    def placeholder(self) -> str:
        """The image in a prompt's text: its token, and the text that ends every image."""
        return f"<image>{FAKE}"

    def check(self, config: Any) -> None:
        """Refuse a tokenizer without the tokens that stand around tiles."""
        super().check(config)
        text = self._glue_text(1, 1)
        if self.tokenizer.unk_token_id in self.tokenizer(text)["input_ids"]:
            raise PrunecalError(
                f"{self.folder}: its tokenizer does not know {text!r}; give the model's own "
                "tokenizer files"
            )

    def pixels(self, image: Image) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Return tiles [1, T, 3, side, side], their masks and the rows and columns of tiles."""
        more: dict[str, Any] = {"do_image_splitting": self.settings["split"]}
        if self.settings["longest_edge"] is not None:
            more["size"] = {"longest_edge": self.settings["longest_edge"]}
        found = self.processor(
            images=[rgb(image)], return_row_col_info=True, return_tensors="pt", **more
        )
        pixels = found["pixel_values"].to(self.device, self.model.dtype)
        grid = int(found["rows"][0][0]), int(found["cols"][0][0])
        return pixels, found["pixel_attention_mask"].to(self.device), grid

    def encode(self, images: Sequence[Image]) -> list[Encoded]:
        """Return the visual tokens of images, tile by tile, and their saliency."""
        return [self.encode_pixels(*self.pixels(image)) for image in images]

    def encode_pixels(self, pixels: Tensor, mask: Tensor, grid: tuple[int, int]) -> Encoded:
        """Return what `encode` returns of one image, from what `pixels` gives."""
        core = self.model.model
        attention = core.vision_model.encoder.layers[-1].self_attn
        with inputs_of(attention) as seen:
            output = core.get_image_features(pixels, mask, return_dict=True)
        states = seen.get("hidden_states", seen.get("first"))
        queries, keys = (
            heads(project(states), attention.num_heads)
            for project in (attention.q_proj, attention.k_proj)
        )
        if seen.get("attention_mask") is not None:
            raise PrunecalError(
                "an image of this model has padding inside a tile, for which its saliency is not "
                "defined; give the model's own image processor"
            )
        saliency = received(queries, keys, attention.scale)
        merged = pooled(saliency, self.model.config.scale_factor).flatten()
        (features,) = output.pooler_output
        side = math.isqrt(len(merged) // len(states))
        layout = (*grid, len(states))
        return Encoded(features, merged, layout, grids=((side, side),) * len(states))

    def block(self, layout: Sequence[int], tokens: int) -> ImageBlock:
        """Return the tokens of an image: tiles, each after its text, then the whole image."""
        import torch

        rows, columns, tiles = layout
        per_tile = tokens // tiles
        glue: list[int | None] = []
        for piece in self._glue_text(rows, columns).split("<image>")[:-1]:
            glue += self.tokenizer(piece, add_special_tokens=False)["input_ids"]
            glue += [None] * per_tile
        return ImageBlock(glue, torch.arange(len(glue))[None], len(glue))

    def _glue_text(self, rows: int, columns: int) -> str:
        """Return the text around tiles, each of which is one `<image>`, and after the last."""
        if not rows:
            return f"{FAKE}<global-img><image>{FAKE}"
        text = ""
        for row in range(1, rows + 1):
            for column in range(1, columns + 1):
                text += f"{FAKE}<row_{row}_col_{column}><image>"
            text += "\n"
        return f"{text}\n{FAKE}<global-img><image>{FAKE}"


load = Idefics3
check = Idefics3.check_folder
