"""Workloads: model shapes with random weights, and questions like those of the benchmarks.

Speed does not depend on the values of the weights, so a shape represents all models of that shape.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from prunecal.core import plugins
from prunecal.engine.interfaces import Encoded
from prunecal.models.llava import Llava
from prunecal.models.qwen2_5_vl import Qwen25VL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch
    from torch import Tensor

    from prunecal.engine.interfaces import Signal

SYSTEM_TOKENS = 35  # of LLaVA-1.5's system sentence and "USER: "
POPE = (
    "Is there a {} in the image ? Answer the question using a single word or phrase . ASSISTANT :"
)


@dataclass(frozen=True)
class Shape:
    """Sizes of a LLaVA: vision tower (ViT, 336 pixels, patches of 14), then decoder."""

    vision_width: int
    vision_layers: int
    vision_heads: int
    width: int
    intermediate: int
    layers: int
    heads: int
    vocabulary: int = 32064
    visual_tokens: int = 576


SHAPES = {
    "mid": Shape(768, 12, 12, 768, 2048, 8, 12),
    "7b": Shape(1024, 24, 16, 4096, 11008, 32, 32),
    "qwen": Shape(768, 12, 12, 768, 2048, 8, 12, visual_tokens=391),
}


@contextlib.contextmanager
def _random_weights(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Make models with random weights, the same ones each time, of a type and on a device."""
    import torch

    torch.manual_seed(0)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(previous)


class _Words:
    """The prompts of a model with random weights: a tokenizer that makes one token of each word."""

    model: torch.nn.Module

    def tokenize(self, texts: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """Return the token ids before the image, and each text's ids after it."""
        return list(range(1, SYSTEM_TOKENS + 1)), [list(map(self._id, t.split())) for t in texts]

    def option_tokens(self, text: str, options: Sequence[str]) -> list[int]:
        """Return the token of each option."""
        del text
        return list(map(self._id, options))

    def option_spellings(self, text: str, options: Sequence[str]) -> list[list[int]]:
        """Return no further token of any option: made-up words have one spelling."""
        del text
        return [[] for _ in options]

    def _id(self, word: str) -> int:
        digest = hashlib.sha256(word.encode()).digest()
        return 100 + int.from_bytes(digest[:4], "big") % (self.model.lm_head.out_features - 200)


class RandomLlava(_Words, Llava):
    """A LLaVA with random weights."""

    def __init__(self, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        from transformers import (
            CLIPVisionConfig,
            LlamaConfig,
            LlavaConfig,
            LlavaForConditionalGeneration,
        )

        from prunecal.engine.decoder import Decoder

        config = LlavaConfig(
            vision_config=CLIPVisionConfig(
                hidden_size=shape.vision_width,
                intermediate_size=4 * shape.vision_width,
                num_hidden_layers=shape.vision_layers,
                num_attention_heads=shape.vision_heads,
                image_size=336,
                patch_size=14,
                projection_dim=shape.vision_width,
            ),
            text_config=LlamaConfig(
                hidden_size=shape.width,
                intermediate_size=shape.intermediate,
                num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads,
                num_key_value_heads=shape.heads,
                vocab_size=shape.vocabulary,
                max_position_embeddings=4096,
            ),
            image_token_index=shape.vocabulary - 1,
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
        )
        with _random_weights(dtype, device):
            self.model = LlavaForConditionalGeneration(config)
        self.model.eval().requires_grad_(requires_grad=False)
        self.settings = {"visual_tokens": shape.visual_tokens}
        self.device = device
        self.decoder = Decoder(self.model.model.language_model, self.model.lm_head)

    def pictures(self, images: int) -> list[Tensor]:
        """Return the pixels of random images, as `seen` takes them."""
        import torch

        generator = torch.Generator().manual_seed(0)
        pixels = torch.randn(images, 1, 3, 336, 336, generator=generator)
        return list(pixels.to(self.device, self.model.dtype))

    def seen(self, picture: Tensor, reads: Sequence[Signal]) -> tuple[Encoded, dict[str, Tensor]]:
        """Encode one image: its tokens, and signals with a first axis of 1."""
        features, saliency, signals = self.signals_of_pixels(picture, reads)
        return Encoded(features[0], saliency[0]), signals


class RandomQwen(_Words, Qwen25VL):
    """A Qwen2.5-VL with random weights, for images of 640 x 480 pixels: 17 x 23 tokens."""

    GRID = (17, 23)  # of visual tokens; patches are four times as many

    def __init__(self, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

        from prunecal.engine.decoder import Decoder

        head, layers = shape.width // shape.heads, shape.vision_layers
        config = Qwen2_5_VLConfig(
            vision_config={
                "depth": layers,
                "hidden_size": shape.vision_width,
                "intermediate_size": 4 * shape.vision_width,
                "num_heads": shape.vision_heads,
                "out_hidden_size": shape.width,
                "fullatt_block_indexes": list(range(layers // 4 - 1, layers, layers // 4)),
            },
            text_config={
                "hidden_size": shape.width,
                "intermediate_size": shape.intermediate,
                "num_hidden_layers": shape.layers,
                "num_attention_heads": shape.heads,
                "num_key_value_heads": shape.heads // 6,
                "vocab_size": shape.vocabulary,
                "max_position_embeddings": 4096,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 1e6,
                    "mrope_section": [head // 8, head // 2 * 3 // 8, head // 2 * 3 // 8],
                },
            },
            image_token_id=shape.vocabulary - 1,
            video_token_id=shape.vocabulary - 2,
            tie_word_embeddings=False,
        )
        with _random_weights(dtype, device):
            self.model = Qwen2_5_VLForConditionalGeneration(config)
        self.model.eval().requires_grad_(requires_grad=False)
        self.settings = {"visual_tokens": shape.visual_tokens, "square": None}
        self.device = device
        self.decoder = Decoder(self.model.model.language_model, self.model.lm_head)

    def pictures(self, images: int) -> list[tuple[Tensor, Tensor]]:
        """Return patches and grids of random images, as `seen` takes them."""
        import torch

        generator, (rows, columns) = torch.Generator().manual_seed(0), self.GRID
        patches = torch.randn(images, 4 * rows * columns, 3 * 2 * 14 * 14, generator=generator)
        grid = torch.tensor([[1, 2 * rows, 2 * columns]], device=self.device)
        return [(one, grid) for one in patches.to(self.device, self.model.dtype)]

    def seen(
        self, picture: tuple[Tensor, Tensor], reads: Sequence[Signal]
    ) -> tuple[Encoded, dict[str, Tensor]]:
        """Encode one image; it gives no further signals."""
        del reads
        return self.encode_pixels(*picture)[0], {}


def random_model(name: str, dtype: torch.dtype, device: torch.device) -> Any:
    """Return a model of one of the `SHAPES`."""
    kind = RandomQwen if name == "qwen" else RandomLlava
    return kind(SHAPES[name], dtype, device)


def pope_like(images: int) -> pd.DataFrame:
    """Return 18 polls per image, of which 10 or 11 are distinct, as in POPE (18 and 10.25)."""
    rows = []
    for image in range(images):
        rng = np.random.default_rng(image)
        distinct = [f"thing{number}" for number in rng.choice(80, 10 + (image % 4 == 0), False)]
        things = distinct[:3] * 2 + distinct
        things += distinct[3 : 3 + 18 - len(things)]
        rows += [(f"image{image}", POPE.format(thing), ["Yes", "No"]) for thing in things]
    return _frame(rows)


def scienceqa_like(images: int) -> pd.DataFrame:
    """Return one question per image, 40 to 110 words long, with two to five lettered choices."""
    rows = []
    for image in range(images):
        rng = np.random.default_rng(image)
        words = [f"word{number}" for number in rng.integers(0, 2000, rng.integers(40, 111))]
        rows.append((f"image{image}", " ".join(words), list("ABCDE")[: rng.integers(2, 6)]))
    return _frame(rows)


def embedded(loader: str) -> Callable[[int], pd.DataFrame]:
    """Return a workload of the embedded study's questions: its model knows no other words."""

    def load(images: int) -> pd.DataFrame:
        dataset = plugins.load("datasets", loader)
        questions = dataset.load(dataset.Params(images=images)).questions
        numbers = pd.factorize(questions["image_id"])[0]
        columns = (map("image{}".format, numbers), questions["text"], questions["options"])
        return _frame(list(zip(*columns, strict=True)))

    return load


LOADS = {"POPE-like": pope_like, "ScienceQA-like": scienceqa_like}
EMBEDDED_LOADS = {"POPE-like": embedded("digits-pope"), "ScienceQA-like": embedded("digits-sqa")}


def _frame(rows: list[tuple]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["image_id", "text", "options"])
    frame["question_id"] = [f"q{at}" for at in range(len(frame))]
    return frame
