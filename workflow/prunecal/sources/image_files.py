"""Images of data sets: decoded to upright 8-bit RGB, or refused by their ids."""

from __future__ import annotations

import io
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecal.core.cli import log
from prunecal.core.errors import PrunecalError, brief, cut

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # some others start programs to be decoded
LONGEST_SIDE = 13_377  # pixels; a square of them is as large as Pillow opens at most. This bound
# decides: Pillow's warning, at half as many pixels, is not given
NARROWEST = 200  # times as long as wide; what is cropped to a square is scaled up by as much
DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N")  # 16 bits a pixel
SIXTEEN_BITS = (";16", ";16B", ";16L", ";16N")  # end the name of what Pillow may reduce to 8 bits
PHOTOMETRIC, SAMPLE_FORMAT = 262, 339  # tags of TIFF files
WHITE_IS_ZERO, SIGNED = 0, 2  # values of theirs
DIMMEST = 4096  # of 65,535: below, a 16-bit image holds 12 bits or a depth, and would be black


def decoded(where: str | Path, image_id: str, content: bytes) -> Image:
    """Return an image as everything shows it: upright, 8 bits a channel, RGB.

    The orientation that a camera notes in EXIF is applied, as browsers and the `datasets` library
    do. 16-bit grey is scaled to 8 bits by its high byte; transparency is left out. Of several
    frames the first is taken. Size is checked before pixels are decoded: an image that is padded to
    a square needs memory for its longer side squared.

    Args:
        where: the data set or file that holds it, for the message.
        image_id: its id.
        content: a whole PNG or JPEG file, or another of FORMATS.

    Raises:
        PrunecalError: it cannot be decoded, a side has no pixels, more than LONGEST_SIDE or more
            than NARROWEST times the other's, or values are signed or of 32 bits, whose range no
            rule tells, or of 16 bits and all small.
    """
    name = _name_in_faults(where, image_id)
    with _named_faults(name):
        file = _opened(name, content)
        deep = any(_raw_mode(tile.args).endswith(SIXTEEN_BITS) for tile in file.tile)
        inverted = _tiff_tag(file, PHOTOMETRIC) == WHITE_IS_ZERO  # it does so in 8 bits alone
        file.load()
        if deep:
            _refuse_dim(name, file)
        file.info.pop("transparency", None)  # of palettes: Pillow warns that it is left out
        kept = file.format == "WEBP"  # its decoder holds two more copies of the pixels
        image = _eight_bits(_upright(name, file), inverted=inverted)
        del file
        return image.convert("RGB") if kept else rgb(image)


def rgb(image: Image) -> Image:
    """Return an image in RGB, itself if it is so: a large one has hundreds of megabytes."""
    return image if image.mode == "RGB" else image.convert("RGB")


def pixels_of_square(where: str | Path, image_id: str, content: bytes) -> int:
    """Return the pixels of an image once it is padded to a square, from its header alone.

    Raises:
        PrunecalError: as `decoded`, as far as the header tells.
    """
    name = _name_in_faults(where, image_id)
    with _named_faults(name, warn=False):  # `decoded` does
        return max(_opened(name, content).size) ** 2


@contextmanager
def _named_faults(name: str, *, warn: bool = True) -> Iterator[None]:
    """Raise faults of Pillow, and log its warnings if `warn`, with the name of the image."""
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # see LONGEST_SIDE
        try:
            yield
        except PrunecalError:
            raise
        except MemoryError as error:
            raise PrunecalError(
                f"{name} does not fit into memory; shrink it, or ask for more memory"
            ) from error
        except Exception as error:  # decoders of damaged files raise whatever they stumble over
            unknown = isinstance(error, UnidentifiedImageError)  # its text names a memory address
            reason = "not an image file" if unknown else cut(str(error))
            raise PrunecalError(
                f"{name} cannot be decoded ({reason}); replace it by a whole PNG or JPEG file"
            ) from error
        finally:
            for one in raised if warn else ():
                log.warning("%s: %s", name, cut(str(one.message)))


def _opened(name: str, content: bytes) -> ImageFile:
    """Open an image and check its header, before any pixel is decoded."""
    from PIL import Image

    image = Image.open(io.BytesIO(content), formats=FORMATS)
    _check_header(name, image)
    return image


def _name_in_faults(where: str | Path, image_id: str) -> str:
    return f"{where}: the image {brief(image_id)}"


def _check_header(name: str, image: Image) -> None:
    """Refuse an image by its size and mode, before any pixel is decoded."""
    short, long = sorted(image.size)
    if not 1 <= long <= min(LONGEST_SIDE, NARROWEST * short):
        raise PrunecalError(
            f"{name} has {image.width} x {image.height} pixels; give it at most {LONGEST_SIDE} "
            f"pixels a side and a side at most {NARROWEST} times as long as the other"
        )
    if image.mode in ("I", "F"):
        raise PrunecalError(
            f"{name} has values of 32 bits (mode {image.mode}); scale them to 8 or 16 bits and "
            f"save it again"
        )
    if SIGNED in (_tiff_tag(image, SAMPLE_FORMAT) or ()):
        raise PrunecalError(
            f"{name} has signed values; shift them to 0 and above and save it again"
        )


def _upright(name: str, image: Image) -> Image:
    from PIL import ExifTags, ImageOps

    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    except Exception as error:  # noqa: BLE001  damaged EXIF raises whatever its parser does
        log.warning("%s has damaged EXIF data (%s); taken as it is stored", name, error)
        return image


def _eight_bits(image: Image, *, inverted: bool) -> Image:
    if image.mode not in DEEP_GREY:
        return image
    import numpy as np
    from PIL import Image

    high = (np.asarray(image) >> 8).astype(np.uint8)
    return Image.fromarray(255 - high if inverted else high)


def _refuse_dim(name: str, image: Image) -> None:
    """Refuse an image of 16 bits a channel whose colours are all too small to be seen."""
    import numpy as np

    if image.mode in DEEP_GREY:
        brightest, kept = int(np.asarray(image).max()), 1
    else:  # of a reduced channel the high byte is left
        ranges = zip(image.getbands(), np.atleast_2d(image.getextrema()), strict=True)
        brightest, kept = max(int(high) for band, (_, high) in ranges if band != "A"), 256
    if 0 < brightest * kept < DIMMEST:
        shown = brightest if kept == 1 else (brightest + 1) * kept - 1
        raise PrunecalError(
            f"{name} has 16 bits a pixel but no value above {shown} of 65535; scale it to the "
            "whole range and save it again"
        )


def _raw_mode(args: Any) -> str:
    """Return the layout of pixels that a decoder is told, first of its arguments or the only one.

    BGR;16, of 5 or 6 bits a channel, is no layout of 16 bits a channel.
    """
    mode = str(args if isinstance(args, str) else next(iter(args or ()), ""))
    return "" if mode.startswith("BGR") else mode


def _tiff_tag(image: Image, tag: int) -> Any:
    """Return the value of a tag; None if it has none or is no TIFF file."""
    return getattr(image, "tag_v2", {}).get(tag)
