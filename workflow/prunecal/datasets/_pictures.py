"""The image in a row of a table: bytes, a struct, a file's name or base64 text."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from prunecal.core.errors import PrunecalError, brief
from prunecal.datasets._answers import is_missing, literal
from prunecal.sources.safe_paths import below, check_file, reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
DATA_URI = ";base64,"
ADDRESS = re.compile(r"[a-z][a-z0-9+.]*://", re.IGNORECASE)
ONE_IMAGE = "give questions about one image each, or set `several_images: skip`"
NAMED = f"{ONE_IMAGE}, or `several_images: named` to take that of `image:` alone"
LEAST_OF_AN_IMAGE = 40  # characters of base64; shorter ones are names that end in no suffix
MOST_OF_A_NAME = 1000  # characters; base64 of an image is longer


def content(where: str, value: Any, folder: Path | None) -> bytes | None:
    """Return the bytes of a row's image, None if it has none.

    Args:
        where: the file and row, for messages.
        value: the bytes; an object with `bytes` or else `path`; a file's name; base64, with or
            without `data:…;base64,` before it; or a list that holds one of these.
        folder: below which the names of files are; None if the study gives none.

    Raises:
        PrunecalError: there are several images, text is neither the name of a file nor base64, or
            the file is missing or outside the folder.
    """
    if isinstance(value, bytes):
        return value or None
    if isinstance(value, dict) and {"bytes", "path"} & value.keys():
        inner = value.get("bytes")
        return content(where, value.get("path") if inner is None else inner, folder)
    several = listed(value)
    if several is not None:
        return _only(where, several, folder)
    if is_missing(value):
        return None
    if not isinstance(value, str):
        raise PrunecalError(
            f"{where} has {brief(value)} as its image; give bytes, the name of a file, or base64"
        )
    text = value.strip()
    if ADDRESS.match(text):
        raise PrunecalError(
            f"{where} has the address {brief(text)} as its image; download the images into a "
            "folder, set `images:` to it, and name their files"
        )
    if PurePosixPath(text[-MOST_OF_A_NAME:]).suffix.lower() in SUFFIXES:
        return _of_file(where, text, folder)
    return _of_base64(where, text)


def listed(value: Any) -> list[Any] | None:
    """Return the images in a row's list, or in text that reads as one; None for anything else."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = literal(value.strip())
    return value if isinstance(value, list) else None


def _only(where: str, values: list[Any], folder: Path | None) -> bytes | None:
    if len(values) > 1:
        raise PrunecalError(f"{where} has {len(values)} images; {ONE_IMAGE}")
    return content(where, values[0], folder) if values else None


def _of_file(where: str, name: str, folder: Path | None) -> bytes:
    if folder is None:
        raise PrunecalError(
            f"{where} names the image file {brief(name)}; set `images:` to the folder that it is in"
        )
    path = below(folder, name, where)
    check_file(path, f"put it there, or correct {where} or `images:`")
    with reading(path):
        return path.read_bytes()


def _of_base64(where: str, text: str) -> bytes:
    _, _, encoded = text.rpartition(DATA_URI)
    try:
        if len(text) < LEAST_OF_AN_IMAGE:
            raise ValueError("too short")  # noqa: TRY301  as what is no base64
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise PrunecalError(
            f"{where} has {brief(text[:60])} as its image, which is neither base64 ({error}) nor "
            f"the name of a file that ends in {', '.join(SUFFIXES)}; correct it"
        ) from error


class Identities:
    """The ids of images, in the order of their first rows.

    An image is its bytes, or the name that the data give it: one name for two images is refused.

    Attributes:
        places: the file and row of each image's first use, by its id.
    """

    def __init__(self) -> None:
        self.places: dict[str, str] = {}
        self._digests: dict[str, bytes] = {}

    def pinned(self, revision: str) -> str:
        """Return a fingerprint of the images and of what a revision pins."""
        digest = hashlib.sha256(revision.encode())
        for image_id, image in self._digests.items():
            digest.update(image_id.encode() + image)
        return f"sha256:{digest.hexdigest()}"

    def id_of(self, where: str, image: bytes, name: str | None = None) -> str:
        """Return an image's id: its name, or a digest of its bytes.

        Raises:
            PrunecalError: an earlier row has another image of that name.
        """
        digest = hashlib.sha256(image).digest()
        image_id = digest.hex()[:16] if name is None else name
        if self._digests.setdefault(image_id, digest) != digest:
            raise PrunecalError(
                f"{where} has another image than {self.places[image_id]} under the name "
                f"{brief(image_id)}; give each image its own name"
            )
        self.places.setdefault(image_id, where)
        return image_id


def in_turn(images: Iterable[tuple[str, bytes]], ids: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield each image once, in the order of `ids`, however the images arrive.

    Args:
        images: pairs of id and bytes; one that arrives too early is held until its turn.
        ids: in the order in which the questions first use them.

    Raises:
        PrunecalError: an image did not arrive: its file changed since its id was read.
    """
    held: dict[str, bytes] = {}
    waiting, arriving = dict.fromkeys(ids), iter(images)
    for image_id in list(waiting):
        while image_id not in held:
            arrived, image = next(arriving, (None, b""))
            if arrived is None:
                raise PrunecalError(
                    f"the image {brief(image_id)} is gone; its file changed while it was read"
                )
            if arrived in waiting:
                held.setdefault(arrived, image)
        del waiting[image_id]
        yield image_id, held.pop(image_id)
