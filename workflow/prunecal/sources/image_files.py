"""Pictures of data sets, decoded or refused by their ids."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from prunecal.core.errors import PrunecalError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # some others start programs to be decoded


def decoded(where: str | Path, image_id: str, content: bytes) -> Image:
    """Return a picture from the bytes of its file.

    Args:
        where: what holds it, for the message.
        image_id: its id.
        content: a whole PNG or JPEG file, or another of FORMATS.

    Raises:
        PrunecalError: it cannot be decoded.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        image.load()
    except Exception as error:  # decoders of damaged files raise whatever they stumble over
        unknown = isinstance(error, UnidentifiedImageError)  # its text names a memory address
        reason = "not an image file" if unknown else error
        raise PrunecalError(
            f"{where}: the image {image_id!r} cannot be decoded ({reason}); replace it by a whole "
            f"PNG or JPEG file"
        ) from error
    return image
