"""What the engine asks of a model and of a strategy that prunes inside it (PEP 544 protocols)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from PIL.Image import Image
    from torch import Tensor

    from prunecal.engine.batch import Batch
    from prunecal.engine.decoder import Decoder, Past


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


class PrunesInside(Protocol):
    """A strategy that drops visual tokens inside the decoder, per question."""

    def infer(
        self, decoder: Decoder, batch: Batch, past: Past, budget: int, params: Any
    ) -> tuple[Tensor, Tensor]:
        """Answer a micro-batch of unpruned rows.

        Args:
            decoder: the language model.
            batch: rows with all N visual tokens.
            past: keys and values of the shared system text.
            budget: visual tokens to keep.
            params: the strategy's settings.

        Returns:
            Final states [Q, H] at the answers, and kept tokens int64 [Q, budget] in raster order.
        """

    def coverage(self, features: Tensor, batch: Batch, kept: Tensor) -> Tensor:
        """Return the evidence coverage float32 [Q] of each question's kept tokens.

        Args:
            features: [B, N, D], the vision features of the micro-batch's rows.
            batch: the micro-batch.
            kept: int64 [Q, budget], as `infer` returns it.
        """

    def tokens_per_layer(self, visual_tokens: int, budget: int, depth: int, params: Any) -> float:
        """Return the mean number of visual tokens that a decoder layer computes on."""
