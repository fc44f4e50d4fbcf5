"""What a strategy reads beside features and saliency, from the files of the signals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunecal.core.errors import RERUN, PrunecalError
from prunecal.storage.arrays import open_arrays
from prunecal.study.strategy_settings import reads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import ModuleType

    from torch import Tensor

IMAGE_EMBEDS = "image_embeds"  # made of features, with what a text signal's file holds


class Signals:
    """The signals of a data set, read for some images at a time.

    Args:
        strategy: the strategy's module.
        variants: its settings, of which some may read more than others.
        paths: files named after their signals.
        ids: the images of the features.

    Raises:
        PrunecalError: a file is missing, or is of other images.
    """

    def __init__(
        self,
        strategy: ModuleType,
        variants: Sequence[Mapping[str, Any]],
        paths: Sequence[Path],
        ids: list[str],
    ) -> None:
        by_name = {path.stem: path for path in paths}
        self._images: dict[str, Any] = {}
        self._texts: dict[str, _Texts] = {}
        self._embeds: list[str] = []
        declared: dict[str, str] = {}
        for variant in variants:
            declared |= reads(strategy, strategy.Params(**variant))
        for name, signal in declared.items():
            if signal == IMAGE_EMBEDS:
                self._embeds.append(name)
                continue
            if signal not in by_name:
                raise PrunecalError(f"rank: --signals lacks {signal}.safetensors, which is read")
            file = open_arrays(by_name[signal], framework="pt")
            if "question" in file.facts:
                self._texts[name] = _Texts(file)
            elif file.facts["image_id"] != ids:
                raise PrunecalError(
                    f"{by_name[signal]} is of other images than the features; delete it and run "
                    "snakemake again"
                )
            else:
                self._images[name] = file.get_slice("signal")

    def of_images(self, images: Sequence[int]) -> dict[str, Tensor]:
        """Return the signals of some images, [B, ...] by the strategy's own names."""
        import torch

        return {
            name: torch.cat([rows[image : image + 1] for image in images]).float()
            for name, rows in self._images.items()
        }

    def of_questions(self, texts: Sequence[str], features: Tensor) -> dict[str, Tensor]:
        """Return the signals of texts about one image, [Q, ...] by the strategy's own names.

        Args:
            texts: digests of Q texts.
            features: float32 [1, N, D] of the image.
        """
        signals = {name: file.of(texts) for name, file in self._texts.items()}
        if self._embeds:
            embeds = next(iter(self._texts.values())).image_embeds(features)
            signals |= {name: embeds.expand(len(texts), -1, -1) for name in self._embeds}
        return signals


class _Texts:
    """A signal of texts: one row for each text, or several segments."""

    def __init__(self, file: Any) -> None:
        import torch

        self._path, self._epsilon = file.path, file.facts["epsilon"]
        self._rows = {text: row for row, text in enumerate(file.facts["question"])}
        values = file.get_tensor("signal")
        self._segmented = "segments" in file.keys()  # noqa: SIM118  not a mapping
        counts = file.get_tensor("segments").tolist() if self._segmented else [1] * len(values)
        self._parts = torch.split(values, counts)
        self._norm = file.get_tensor("norm").double()
        self._projection = file.get_tensor("projection").double()

    def of(self, texts: Sequence[str]) -> Tensor:
        """Return [Q, C], or of segments [Q, M, C], zero behind the last of each text."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        missing = [text for text in texts if text not in self._rows]
        if missing:
            raise PrunecalError(f"{self._path} lacks a text of the questions; {RERUN}")
        parts = [self._parts[self._rows[text]] for text in texts]
        if not self._segmented:
            return torch.cat(parts)
        return pad_sequence(parts, batch_first=True)

    def image_embeds(self, features: Tensor) -> Tensor:
        """Return the embeddings [1, N, C] of patches: layer norm, then projection, in float64.

        Raises:
            PrunecalError: the features are of another width than CLIP's.
        """
        from torch.nn.functional import layer_norm

        width = self._projection.shape[1]
        if features.shape[2] != width:
            raise PrunecalError(
                f"the features are {features.shape[2]} wide, but the text tower belongs to a CLIP "
                f"of width {width}; correct `text_tower` of the model"
            )
        normed = layer_norm(features.double(), (width,), *self._norm, self._epsilon)
        return (normed @ self._projection.T).float()
