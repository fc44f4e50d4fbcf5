"""What the engine asks of a model and of a strategy that prunes inside it (PEP 544 protocols)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from PIL.Image import Image
    from torch import Tensor

    from prunecal.engine.batch import Batch
    from prunecal.engine.decoder import Decoder
    from prunecal.engine.stages import Seen


# what a strategy may read beside features and saliency: of an image, see `Llava.encode_signals`;
# of a question's text, see the stage `embed`; and, with a text, patches in CLIP's space
Signal = Literal[
    "cls",
    "keys",
    "attention",
    "early_attention",
    "last_keys",
    "last_cls_query",
    "projected_similarity",
    "image_embeds",
    "text_embeds",
    "text_segments",
]


Part = Literal["whole", "vision", "language"]  # what is loaded of a model


@dataclass(frozen=True)
class Encoded:
    """What a vision tower makes of one image.

    Attributes:
        features: [N, D], its visual tokens, in the model's dtype.
        saliency: float32 [N].
        layout: how the tokens lie in the image, as the model family counts it (rows and columns of
            the grid; tiles); the same number of values for all images, none if all are alike.
        deep: [N, H] for each decoder layer that has more visual input added to it (DeepStack).
        grids: rows and columns of the grids of patches that the tokens are, one after another, each
            in raster order; none if they are a single square.
        tiles: int32 [N], the tile of each token, if tiles are to be ranked apart.
    """

    features: Tensor
    saliency: Tensor
    layout: tuple[int, ...] = ()
    deep: tuple[Tensor, ...] = ()
    grids: tuple[tuple[int, int], ...] = ()
    tiles: Tensor | None = None


@dataclass(frozen=True)
class ImageBlock:
    """The tokens of an image in the unpruned prompt: visual ones and glue between them.

    Glue are tokens that are not visual, such as the end of each row of patches. It stays when
    visual tokens are dropped and counts in no budget.

    Attributes:
        glue: per token of the block None if it is visual, else the id to embed.
        positions: int64 [L] or [3, L], position ids relative to the block's first token.
        end: how far the text after the image has moved on from the block's first token.
        spans: the glue, by its place in the block, that stays only while a visual token of this
            half-open range of them is kept; the unpruned model has all of it.
    """

    glue: Sequence[int | None]
    positions: Tensor
    end: int
    spans: Mapping[int, tuple[int, int]] = field(default_factory=dict)


class VisionEncoder(Protocol):
    """The part "vision" of a loaded model."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings that it was loaded with."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""

    def encode(self, images: Sequence[Image]) -> list[Encoded]:
        """Return the visual tokens of each image."""


class VisionLanguageModel(VisionEncoder, Protocol):
    """A loaded model; of the part "language", `encode` need not work.

    It may also have `block(layout, tokens)`, the `ImageBlock` of an image with that layout and
    number of visual tokens, which is else a run of visual tokens alone; `embed_glue(tokens)`, the
    embeddings [..., H] of glue and text, else the decoder's; `both_ways`, true if the visual
    tokens of an image attend to each other both ways; and `tokenize_without_image(texts)`, the
    token ids of whole prompts that have no image. For short answers it has `end_tokens()`, the
    ids that end one, and `text(tokens)`, that of an answer's ids.
    """

    @property
    def decoder(self) -> Decoder:
        """The language model."""

    def project(self, features: Tensor) -> Tensor:
        """Return visual tokens [..., H] in the decoder's space from features [..., D]."""

    def tokenize(self, texts: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """Return the token ids before the image, and each user text's ids after it."""

    def option_tokens(self, text: str, options: Sequence[str]) -> list[int]:
        """Return the first token of each answer option, as it would follow the prompt."""


@dataclass(frozen=True)
class Stage:
    """Where a strategy replaces the visual tokens by fewer, and by how many.

    Attributes:
        look: the layer whose attention or keys the strategy reads.
        cut: the first layer that runs on fewer tokens. If it is before `look`, the prompt runs
            again from layer 0 with the tokens that are left.
        keep: tokens that are kept as they are.
        merge: tokens made by merging others, which follow the kept ones.
    """

    look: int
    cut: int
    keep: int
    merge: int = 0

    @property
    def entering(self) -> int:
        """Visual tokens that enter layer `cut`."""
        return self.keep + self.merge


@dataclass(frozen=True)
class Reduction:
    """What stands in the place of the current visual tokens: the kept ones, then merged ones.

    Attributes:
        kept: int64 [Q, K], indices of current tokens, in the order in which they stay.
        merged: float [Q, M, V], weights, not negative, of the current tokens in each merged one;
            None if there are none.
    """

    kept: Tensor
    merged: Tensor | None = None


class PrunesInside(Protocol):
    """A strategy that drops visual tokens inside the decoder, per question."""

    LOOKS: Literal["attention", "keys"] = "attention"  # what it reads of a layer
    MERGES: bool = False  # whether its stages may merge tokens

    def stages(self, visual_tokens: int, budget: float, depth: int, params: Any) -> list[Stage]:
        """Return where tokens are dropped, from the first layer on.

        Args:
            visual_tokens: tokens of an image before pruning, N.
            budget: tokens that enter the layers after the last stage; where budgets are matched
                (`study.schedules`), a number that need not be whole, by which earlier stages go.
            depth: layers of the decoder.
            params: the strategy's settings.
        """

    def select(self, seen: Seen, stage: Stage, params: Any) -> Reduction:
        """Return the tokens that take the place of the current ones, for each question.

        Args:
            seen: what the stage looked at.
            stage: how many tokens it keeps.
            params: the strategy's settings.
        """


class Asks(PrunesInside, Protocol):
    """A strategy that looks at the attention of other text tokens than the prompt's last."""

    def queries(self, batch: Batch, params: Any) -> Tensor:
        """Return which text tokens look at the image, bool [Q, L] as `Batch.text` has them.

        Args:
            batch: the unpruned rows, before layer 0.
            params: the strategy's settings.
        """
