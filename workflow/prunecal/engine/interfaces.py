"""What the engine asks of a model and of a strategy that prunes inside it (PEP 544 protocols)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from PIL.Image import Image
    from torch import Tensor

    from prunecal.engine.batch import Batch
    from prunecal.engine.decoder import Decoder
    from prunecal.engine.stages import Seen


# what a strategy may read of an image beside features and saliency; see `VisionLanguageModel`
Signal = Literal["cls", "keys", "attention", "early_attention", "last_keys", "last_cls_query"]


Part = Literal["whole", "vision", "language"]  # what is loaded of a model


class VisionEncoder(Protocol):
    """The part "vision" of a loaded model."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings that it was loaded with."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""

    def encode(self, images: Sequence[Image]) -> tuple[Tensor, Tensor]:
        """Return visual tokens [B, N, D] in the model's dtype and their saliency float32 [B, N]."""


class VisionLanguageModel(VisionEncoder, Protocol):
    """A loaded model; of the part "language", `encode` need not work."""

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

    def stages(self, visual_tokens: int, budget: int, depth: int, params: Any) -> list[Stage]:
        """Return where tokens are dropped, from the first layer on.

        Args:
            visual_tokens: tokens of an image before pruning, N.
            budget: tokens that enter the layers after the last stage.
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
