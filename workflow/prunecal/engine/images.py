"""The images of a data set as a decoder gets them: kept visual tokens, glue, positions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch.nn.utils.rnn import pad_sequence

from prunecal.core.errors import PrunecalError
from prunecal.engine.interfaces import ImageBlock
from prunecal.storage.per_image import PerImage

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor

    from prunecal.engine.interfaces import VisionLanguageModel
    from prunecal.engine.merged import Merged
    from prunecal.storage.arrays import Arrays


@dataclass(frozen=True)
class Part:
    """What one image adds to a row. Positions and places are relative to its first token.

    Attributes:
        features: [K, D], the kept visual tokens in raster order.
        visual_positions: int64 [P, K], their position ids on P axes.
        visual_places: int64 [K], their places in the pruned prompt.
        glue: ids of the tokens of the image that are not visual, G of them.
        glue_positions: int64 [P, G].
        glue_places: int64 [G].
        end: position of the first token after the image.
        deep: [K, H] for each decoder layer that has more visual input added to it.
    """

    features: Tensor
    visual_positions: Tensor
    visual_places: Tensor
    glue: tuple[int, ...]
    glue_positions: Tensor
    glue_places: Tensor
    end: int
    deep: tuple[Tensor, ...]

    @property
    def kept(self) -> int:
        """K, the number of kept visual tokens."""
        return len(self.features)

    @property
    def ordered(self) -> bool:
        """Whether all glue comes after the visual tokens."""
        return not self.glue or int(self.glue_places[0]) >= self.kept


class _Block:
    """An `ImageBlock` with the columns of visual tokens and of glue apart."""

    def __init__(self, block: ImageBlock) -> None:
        self.end, self.length = block.end, len(block.glue)
        visual = [at for at, token in enumerate(block.glue) if token is None]
        self.visual = torch.tensor(visual)
        self.glue = [at for at, token in enumerate(block.glue) if token is not None]
        self.ids = [token for token in block.glue if token is not None]
        self.spans = [block.spans.get(at) for at in self.glue]
        self.positions = block.positions

    def left(self, kept: Tensor) -> tuple[list[int], list[int]]:
        """Return columns and ids of the glue that stays with these visual tokens."""
        if len(kept) == len(self.visual):
            return self.glue, self.ids
        marks = torch.zeros(len(self.visual) + 1, dtype=torch.int64)
        marks[kept + 1] = 1
        before = marks.cumsum(0).tolist()
        stay = [span is None or before[span[1]] > before[span[0]] for span in self.spans]
        columns = [column for column, stays in zip(self.glue, stay, strict=True) if stays]
        return columns, [token for token, stays in zip(self.ids, stay, strict=True) if stays]


class Images:
    """The visual tokens of a data set's images, read from their file as they are needed.

    Args:
        model: that made them.
        file: features.safetensors, opened for torch.

    Raises:
        PrunecalError: it lacks an array.
    """

    def __init__(self, model: VisionLanguageModel, file: Arrays) -> None:
        self.model = model
        self.features = PerImage(file, "features")
        layers = sum(name.startswith("deep/") for name in file.keys())  # noqa: SIM118
        self.deep = [PerImage(file, f"deep/{layer}") for layer in range(layers)]
        self.counts: list[int] = self.features.counts
        self._layouts: list[tuple[int, ...]] = [()] * len(self.counts)
        if "layout" in file.keys():  # noqa: SIM118
            self._layouts = [tuple(row) for row in file.get_tensor("layout").tolist()]
        self._blocks: dict[tuple[tuple[int, ...], int], _Block] = {}

    def __len__(self) -> int:
        return len(self.counts)

    @cached_property
    def glue_counts(self) -> list[int]:
        """The number of glue tokens of each unpruned image."""
        return [len(self._block(image).glue) for image in range(len(self))]

    def part(self, image: int, kept: Tensor | None, *, compact: bool) -> Part:
        """Return what an image adds to a prompt.

        Args:
            image: its index.
            kept: int64 [K], the visual tokens that are kept in raster order; None for all.
            compact: renumber positions without gaps.
        """
        block = self._block(image)
        kept = torch.arange(self.counts[image]) if kept is None else kept
        glue, ids = block.left(kept)
        visual = block.visual[kept]
        glue_at = torch.tensor(glue, dtype=torch.int64)
        if glue:
            present = torch.cat((visual, glue_at)).argsort().argsort()
            visual_places, glue_places = present[: len(visual)], present[len(visual) :]
        else:
            visual_places, glue_places = torch.arange(len(visual)), glue_at
        if compact:
            positions, glue_positions = visual_places[None], glue_places[None]
            end = len(visual) + len(glue)
        else:
            positions, glue_positions = block.positions[:, visual], block.positions[:, glue_at]
            end = block.end
        return Part(
            features=self.features[image][kept],
            visual_positions=positions,
            visual_places=visual_places,
            glue=tuple(ids),
            glue_positions=glue_positions,
            glue_places=glue_places,
            end=end,
            deep=tuple(rows[image][kept] for rows in self.deep),
        )

    def merged(self, row: int, image: int, merged: Merged) -> Part:
        """Return what an image adds to a prompt in which the merged tokens of a row stand for it.

        Their positions are those of as many tokens without gaps.

        Raises:
            PrunecalError: the model reads more of each visual token than its features.
        """
        if self._block(image).glue or self.deep:
            raise PrunecalError(
                "this model has tokens between the visual ones, or gives its decoder's layers "
                "more of each, so that its tokens cannot be merged; use a strategy that keeps them"
            )
        tokens = merged.tokens(row, image, self.features[image])
        return replace(self.part(image, torch.arange(len(tokens)), compact=True), features=tokens)

    def refuse_other_ranking(
        self, order: Sequence[np.ndarray], kept: Sequence[int], images: Sequence[int]
    ) -> None:
        """Refuse rankings, int [K] of each row, of other images or tokens than these.

        Args:
            order: the rankings.
            kept: how many tokens each row should have.
            images: the image of each row.

        Raises:
            PrunecalError: they do not fit.
        """
        if len(order) == len(images) and all(
            len(tokens) == number and tokens.max() < self.counts[image]
            for tokens, number, image in zip(order, kept, images, strict=True)
        ):
            return
        raise PrunecalError(
            "the ranking is of other images or tokens than the features; delete the strategy's "
            "ranking.safetensors and run snakemake again"
        )

    def _block(self, image: int) -> _Block:
        key = self._layouts[image], self.counts[image]
        if key not in self._blocks:
            make = getattr(self.model, "block", run_of_tokens)
            self._blocks[key] = _Block(make(*key))
        return self._blocks[key]


def run_of_tokens(layout: Sequence[int], tokens: int) -> ImageBlock:
    """Return an image that is a run of visual tokens, whatever their layout."""
    del layout
    return ImageBlock([None] * tokens, torch.arange(tokens)[None], tokens)


def padded(rows: Sequence[Tensor]) -> Tensor:
    """Return [B, V, ...] from rows [K, ...] of different lengths, zero behind each."""
    if len({len(row) for row in rows}) == 1:
        return torch.stack(list(rows))
    return pad_sequence(list(rows), batch_first=True)
