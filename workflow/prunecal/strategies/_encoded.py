"""The images of a data set as strategies rank them, and the questions about them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from prunecal.core.errors import RERUN, PrunecalError
from prunecal.storage import files
from prunecal.storage.arrays import open_arrays
from prunecal.storage.checksums import text_digest
from prunecal.storage.per_image import TILES, PerImage, grids_of
from prunecal.strategies import Images
from prunecal.strategies._signals import Signals

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType
    from typing import Any

    from torch import Tensor


@dataclass(frozen=True)
class EncodedImages:
    """The images of a data set as `encode` wrote them, and what a strategy reads of them."""

    ids: list[str]
    features: PerImage
    saliency: PerImage
    signals: Signals
    grids: list[tuple[tuple[int, int], ...]]
    tiles: PerImage | None
    layout: dict[str, Any]  # of images with different numbers of tokens

    @classmethod
    def read(
        cls,
        features: Path,
        signals: list[Path],
        strategy: ModuleType,
        variants: list[dict[str, Any]],
    ) -> EncodedImages:
        """Open the files of `encode` and `embed` for variants of a strategy.

        Raises:
            PrunecalError: a signal is missing, or inputs do not fit together.
        """
        file = open_arrays(features, framework="pt")
        ids, names = file.facts["image_id"], file.keys()
        return cls(
            ids,
            PerImage(file, "features"),
            PerImage(file, "saliency"),
            Signals(strategy, variants, signals, ids),
            grids_of(file, len(ids)),
            PerImage(file, TILES) if TILES in names else None,
            {"layout": file.get_tensor("layout").numpy()} if "layout" in names else {},
        )

    def some(self, batch: list[int]) -> Images:
        """Return some images of equal numbers of tokens."""
        import torch

        return Images(
            torch.stack([self.features[image] for image in batch]).float(),
            torch.stack([self.saliency[image] for image in batch]),
            [self.ids[image] for image in batch],
            self.signals.of_images(batch),
            self.grids[batch[0]],
        )

    def asked(self, image: int, texts: list[str]) -> Images:
        """Return an image once for each text about it: its arrays are expanded, not copied."""
        one = self.some([image])

        def rows(values: Tensor) -> Tensor:
            return values.expand(len(texts), *values.shape[1:])

        signals = {name: rows(values) for name, values in one.signals.items()}
        signals |= self.signals.of_questions(texts, one.features)
        ids = [self.ids[image]] * len(texts)
        return Images(rows(one.features), rows(one.saliency), ids, signals, one.grids)


def pairs_asked(questions: Path, ids: list[str]) -> list[tuple[int, str]]:
    """Return the distinct pairs of an image and the digest of a text about it, image by image.

    Raises:
        PrunecalError: a question is about an image without features.
    """
    place = {image: at for at, image in enumerate(ids)}
    table = files.read_table(questions, ["image_id", "text"])
    columns = (column.to_pylist() for column in table.columns)
    pairs = dict.fromkeys(
        (place.get(image, image), text_digest(text)) for image, text in zip(*columns, strict=True)
    )
    lacking = [image for image, _ in pairs if isinstance(image, str)]
    if lacking:
        raise PrunecalError(
            f"{questions} asks about {lacking[0]!r}, which has no features; {RERUN}"
        )
    return sorted(pairs, key=lambda pair: pair[0])


def of_each_image(pairs: list[tuple[int, str]]) -> Iterator[list[int]]:
    """Yield the rows of each image."""
    for _, rows in groupby(range(len(pairs)), key=lambda row: pairs[row][0]):
        yield list(rows)
