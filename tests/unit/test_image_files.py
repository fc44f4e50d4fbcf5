"""Images reach the model upright, in 8 bits and within memory, or are refused by their ids."""

import io
import struct
import tracemalloc
import weakref
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin, features

from prunecal import encode
from prunecal.core.errors import PrunecalError
from prunecal.figures import kept_tokens
from prunecal.models.llava import pad_to_square
from prunecal.sources.image_files import LONGEST_SIDE, NARROWEST, decoded, pixels_of_square, rgb
from prunecal.storage import files

RAMP = np.arange(48 * 32, dtype=np.uint16).reshape(48, 32)  # 0 to 1535


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(content):
    image = decoded("images.parquet", "one", content)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_shown_by_its_high_byte(kind):
    grey = RAMP * 42
    shown = pixels(saved(Image.fromarray(grey), kind))
    expected = pixels(saved(Image.fromarray((grey // 256).astype(np.uint8))))
    assert np.array_equal(shown, expected)
    assert len(np.unique(shown)) > 200


def test_16_bit_grey_of_either_byte_order_is_the_same():
    shown = [
        pixels(saved(Image.frombytes(mode, (32, 48), (RAMP * 42).astype(order).tobytes()), "TIFF"))
        for mode, order in (("I;16", "<u2"), ("I;16B", ">u2"))
    ]
    assert np.array_equal(*shown)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (RAMP, r"has 16 bits a pixel but no value above 1535 of 65535; scale it"),
        (RAMP.astype(np.int32) * 70_000, r"has values of 32 bits \(mode I\); scale them"),
        (RAMP.astype(np.float32) / 1535, r"has values of 32 bits \(mode F\); scale them"),
    ],
    ids=["12 bits in 16", "32-bit integers", "floats"],
)
def test_values_without_a_known_range_are_refused_by_id(values, fault):
    with pytest.raises(PrunecalError, match=f"^images.parquet: the image 'one' {fault}"):
        pixels(saved(Image.fromarray(values), "TIFF"))


def deep_png(colour, values, channels):
    """Return a PNG of 16 bits a channel, which Pillow opens in 8."""
    rows = np.repeat(values.astype(">u2")[..., None], channels, axis=2)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    return png_file(*values.shape[::-1], zlib.compress(data), depth=16, colour=colour)


def test_a_dark_image_of_8_bits_is_not_taken_for_one_of_16():
    """The stride of its rows, 2160 bytes, is among what its decoder is told."""
    dark = Image.new("RGB", (720, 4), (9, 3, 0))
    assert pixels(saved(dark, "BMP"))[0, 0].tolist() == [9, 3, 0]


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_channels_of_16_bits_that_pillow_reduces_are_refused_where_all_are_dark(colour, channels):
    bright = pixels(deep_png(colour, RAMP * 42, channels))
    assert np.array_equal(bright[..., 0], RAMP * 42 // 256)
    with pytest.raises(PrunecalError, match="16 bits a pixel but no value above 1535 of 65535"):
        pixels(deep_png(colour, RAMP, channels))


def tiff(values, tags):
    """Return a TIFF file of grey values with these tags."""
    image = Image.fromarray(values)
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[tag] = value
    return saved(image, "TIFF", tiffinfo=info)


def test_grey_whose_zero_is_white_is_shown_so_in_8_and_in_16_bits():
    content = tiff(RAMP * 42, {262: 0})
    with Image.open(io.BytesIO(content)) as stored:
        assert stored.tag_v2[262] == 0
    assert np.array_equal(pixels(content)[..., 0], 255 - RAMP * 42 // 256)


def test_signed_values_are_refused():
    with pytest.raises(PrunecalError, match="'one' has signed values; shift them"):
        pixels(tiff((RAMP % 256).astype(np.uint8), {339: 2}))


def test_a_black_16_bit_image_is_black():
    assert pixels(saved(Image.fromarray(RAMP * 0))).max() == 0


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_every_other_mode_becomes_rgb(mode):
    kind = "PNG" if mode in ("1", "L", "LA", "P", "RGB", "RGBA") else "TIFF"
    assert pixels(saved(Image.new(mode, (9, 8)), kind)).shape == (8, 9, 3)


UPRIGHT = {  # by EXIF's number: how the stored rows and columns are turned to be upright
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_images_are_turned_as_exif_says(kind, orientation):
    if kind == "WEBP" and not features.check("webp"):
        pytest.skip("NOT TESTED: Pillow without WebP")
    stored = Image.effect_noise((24, 16), 90).resize((48, 32)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    content = saved(stored, kind, exif=exif, **options)
    with Image.open(io.BytesIO(saved(stored, kind, **options))) as plain:
        expected = UPRIGHT[orientation](np.asarray(plain.convert("RGB")))
    assert np.array_equal(pixels(content), expected)


def test_damaged_exif_leaves_an_image_as_it_is_stored(caplog):
    stored = Image.effect_noise((24, 16), 90).convert("RGB")
    content = saved(stored, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01" * 9)
    assert np.array_equal(pixels(content), np.asarray(stored))
    assert np.array_equal(pixels(saved(stored, exif=b"Exif\0\0nonsense")), np.asarray(stored))


def bomb(width, height):
    """Return a small PNG that says it has this many pixels."""
    return png_file(width, height, zlib.compress(b"\0" * (1 << 20)))


def png_file(width, height, data, depth=8, colour=0):
    """Return a PNG of compressed data."""

    def chunk(kind, data):
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("width", "height"),
    [(60_000, 1), (1, 60_000), (LONGEST_SIDE + 1, 400), (30_000, 30_000), (NARROWEST + 1, 1)],
)
def test_size_is_refused_before_it_takes_memory(width, height):
    content = bomb(width, height)
    tracemalloc.start()
    with pytest.raises(PrunecalError, match=f"image 'one' (has {width} x {height} pixels|cannot)"):
        decoded("images.parquet", "one", content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6


def test_what_our_bound_allows_gives_no_warning_of_pillow(monkeypatch, caplog):
    assert 2 * Image.MAX_IMAGE_PIXELS >= LONGEST_SIDE**2 > Image.MAX_IMAGE_PIXELS
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    content = saved(Image.new("RGB", (12, 12)))
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(content))
    assert pixels(content).shape == (12, 12, 3)  # warnings are errors in tests
    assert pixels_of_square("images.parquet", "one", content) == 144
    assert caplog.text == ""


def test_a_warning_of_pillow_names_the_image(caplog):
    exif = Image.Exif()
    exif[0x010E] = "a description that is longer than four bytes"
    content = saved(Image.new("RGB", (12, 12)), exif=exif.tobytes()[:-20])
    pixels(content)
    assert "images.parquet: the image 'one': " in caplog.text


def test_transparency_is_left_out_without_a_warning(caplog):
    values = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    grey = Image.fromarray(values)
    palette = grey.convert("P")
    opaque = pixels(saved(palette))
    assert np.array_equal(pixels(saved(palette, transparency=bytes(range(256)))), opaque)
    assert np.array_equal(pixels(saved(palette, transparency=7)), opaque)
    assert np.array_equal(pixels(saved(grey, transparency=4)), pixels(saved(grey)))
    assert caplog.text == ""


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_rgb_image_is_not_copied(kind, monkeypatch):
    content = saved(Image.new("RGB", (12, 12)), kind)
    for name in ("copy", "convert", "transpose"):
        monkeypatch.setattr(Image.Image, name, lambda *_: pytest.fail("copied"))
    image = decoded("images.parquet", "one", content)
    assert pad_to_square(rgb(image), (0, 0, 0)) is image


def test_only_the_images_of_one_batch_are_decoded_at_a_time(monkeypatch):
    monkeypatch.setattr(encode, "PIXELS", 2 * 9 * 9)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # warnings are errors in tests
    alive = []

    def watched(*arguments):
        alive[:] = [one for one in alive if one() is not None]
        assert len(alive) < 2
        image = decoded(*arguments)
        alive.append(weakref.ref(image))
        return image

    monkeypatch.setattr(encode.image_files, "decoded", watched)
    content = saved(Image.new("RGB", (9, 9)))
    rows = [{"image_id": str(number), "bytes": content} for number in range(6)]
    model = SimpleNamespace(encode=lambda images: [image.size for image in images])
    batches = encode._batches("images.parquet", rows)
    sizes = [encode._encode("images.parquet", model, batch, [])[0] for batch in batches]
    assert sizes == [[(9, 9)] * 2] * 3


def test_photographs_are_encoded_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr(encode, "PIXELS", 40 * 40)
    monkeypatch.setattr(encode, "BATCH", 3)
    sizes = [
        (20, 10),
        (20, 20),
        (5, 20),
        (1, 20),
        (10, 40),
        (90, 90),
        (1, 1),
        (2, 2),
        (2, 1),
        (1, 2),
    ]
    rows = [
        {"image_id": str(number), "bytes": saved(Image.new("RGB", size))}
        for number, size in enumerate(sizes)
    ]
    batches = [
        [row["image_id"] for row in batch] for batch in encode._batches("images.parquet", rows)
    ]
    assert batches == [["0", "1", "2"], ["3"], ["4"], ["5"], ["6", "7", "8"], ["9"]]


def test_a_lack_of_memory_is_told_by_the_images():
    def no_memory(images):
        raise MemoryError

    content = saved(Image.new("RGB", (9, 9)))
    batch = [{"image_id": name, "bytes": content} for name in ("a", "b")]
    with pytest.raises(PrunecalError, match="2 images from 'a' on do not fit into memory"):
        encode._encode("images.parquet", SimpleNamespace(encode=no_memory), batch, [])


def test_figures_show_an_image_as_it_is_encoded(tmp_path, monkeypatch):
    import pyarrow as pa

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # warnings are errors in tests
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.new("RGB", (40, 40), (255, 255, 255))
    stored.paste((0, 0, 0), (0, 0, 40, 20))  # the upper half, which is the right one upright
    deep = Image.fromarray((np.full((40, 40), 200 * 256)).astype(np.uint16))
    contents = [saved(stored, exif=exif), saved(deep)]
    path = tmp_path / "images.parquet"
    files.write_table(path, pa.table({"image_id": ["a", "b"], "bytes": contents}), {})
    turned, grey = kept_tokens.first_pictures(path, "crop", [0.5] * 3).values()
    assert turned[:, :60].min() > 200
    assert turned[:, -60:].max() < 50
    assert (grey == 200).all()
    files.write_table(path, pa.table({"image_id": ["a"], "bytes": [bomb(30_000, 30_000)]}), {})
    with pytest.raises(PrunecalError, match="the image 'a' "):
        kept_tokens.first_pictures(path, "pad", [0.5] * 3)
