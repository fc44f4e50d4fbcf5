"""Pairs of an image and a question's text, of which each has visual tokens of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.core.errors import PrunecalError
from prunecal.storage.checksums import text_digest

if TYPE_CHECKING:
    from collections.abc import Sequence


def rows_of(
    pairs: Sequence[tuple[str, str]],
    image_ids: Sequence[str],
    images: Sequence[int],
    texts: Sequence[str],
) -> tuple[list[int], list[int]]:
    """Return the row of each question in a ranking, and the image of each row.

    Args:
        pairs: of each row, the image's id and the digest of the text.
        image_ids: of the features.
        images: the image of each question.
        texts: of the questions.

    Raises:
        PrunecalError: the pairs lack one of a question, or have one of an unknown image.
    """
    row = {pair: at for at, pair in enumerate(pairs)}
    place = {image: at for at, image in enumerate(image_ids)}
    asked = [
        (image_ids[image], text_digest(text)) for image, text in zip(images, texts, strict=True)
    ]
    if any(pair not in row for pair in asked) or any(image not in place for image, _ in pairs):
        raise PrunecalError(
            "the ranking is of other questions than these; delete the strategy's "
            "ranking.safetensors and run snakemake again"
        )
    return [row[pair] for pair in asked], [place[image] for image, _ in pairs]
