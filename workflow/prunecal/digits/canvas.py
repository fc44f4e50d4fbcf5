"""Canvases: images of several real handwritten digits on a textured background.

The digits are the 1,797 scans of 8 x 8 pixels that scikit-learn ships (UCI, Optical Recognition of
Handwritten Digits). Training and test canvases use disjoint sets of scans. A canvas depends only on
(split, seed, index), not on the order or number of canvases.
"""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from typing import Literal

import numpy as np

Split = Literal["train", "test"]

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIDE = 120  # pixels per side of a canvas
PATCH = 12  # pixels per side of a visual token's patch, so 10 x 10 tokens
GRID = SIDE // PATCH
BACKGROUND = len(NAMES)  # label of a patch without a digit

TEST_SCANS = 597
FEWEST, MOST = 4, 9  # digits on a canvas
FREQUENCY = (0.16, 0.14, 0.13, 0.12, 0.10, 0.09, 0.08, 0.07, 0.06, 0.05)  # of zero to nine
SUCCESSION = 0.35  # probability that a digit is the previous one's successor: co-occurrence
SIZES = (11, 15)  # smallest and largest side of a digit in pixels
JITTER = 2  # largest offset of a digit from a patch's centre in pixels; smaller is likelier
CONTRAST = (0.3, 0.75)
GROUND = (0.2, 0.5)
TEXTURE = 0.04  # standard deviation of the blotches; that of the grain is 0.7 times this
BLOTCH = 2 * PATCH  # pixels per side


@dataclass(frozen=True)
class Digit:
    """A digit on a canvas: its class, its scan, and its square in pixels."""

    value: int
    scan: int
    top: int
    left: int
    size: int

    @property
    def patch(self) -> int:
        """Index of the patch that holds the digit's centre, in raster order."""
        middle = self.size // 2
        return (self.top + middle) // PATCH * GRID + (self.left + middle) // PATCH


@dataclass(frozen=True)
class Canvas:
    """An image, uint8 [SIDE, SIDE] in grey, and the digits on it in the order of drawing."""

    pixels: np.ndarray
    digits: tuple[Digit, ...]

    @functools.cached_property
    def present(self) -> frozenset[int]:
        """The classes on the canvas."""
        return frozenset(digit.value for digit in self.digits)

    @property
    def patches(self) -> np.ndarray:
        """The class of the digit centred in each patch, or BACKGROUND, int64 [GRID * GRID]."""
        labels = np.full(GRID * GRID, BACKGROUND)
        for digit in self.digits:
            labels[digit.patch] = digit.value
        return labels

    def png(self) -> bytes:
        """Encode the canvas as an RGB file."""
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(self.pixels).convert("RGB").save(file, format="PNG")
        return file.getvalue()


def stream(split: Split, seed: int, index: int, purpose: str) -> np.random.Generator:
    """Return the random stream of one canvas for one purpose, for example "drawing"."""
    return np.random.default_rng([seed, index, *f"{split} {purpose}".encode()])


def make_canvas(split: Split, seed: int, index: int) -> Canvas:
    """Draw one canvas.

    Args:
        split: whether to use the scans for training or those for testing.
        seed: seed of the whole set, at least 0.
        index: index of the canvas in the set, at least 0.
    """
    rng = stream(split, seed, index, "drawing")
    values, ground = _values(rng), _ground(rng)
    digits = []
    for value, cell in zip(values, _cells(rng, len(values)), strict=True):
        size = int(rng.integers(SIZES[0], SIZES[1] + 1))
        centre = cell * PATCH + PATCH // 2 + rng.binomial(2 * JITTER, 0.5, 2) - JITTER
        top, left = np.clip(centre - size // 2, 0, SIDE - size).tolist()
        digit = Digit(value, int(rng.choice(_pool(split, value))), top, left, size)
        enlarge = _enlargement(size)
        ink = enlarge @ _scans()[0][digit.scan] @ enlarge.T
        ground[top : top + size, left : left + size] += rng.uniform(*CONTRAST) * ink
        digits.append(digit)
    pixels = (ground.clip(0, 1) * 255).round().astype(np.uint8)
    return Canvas(pixels, tuple(digits))


def test_canvases(seed: int, count: int) -> dict[str, Canvas]:
    """Draw the first test canvases of a set, by image id."""
    return {f"canvas-{index:04d}": make_canvas("test", seed, index) for index in range(count)}


@functools.cache
def _scans() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's scans, float [1797, 8, 8] from 0 to 1, and their classes."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return data.images / 16, data.target


@functools.cache
def _pool(split: Split, value: int) -> np.ndarray:
    """Return the indices of a split's scans of one digit."""
    _, targets = _scans()
    shuffled = np.random.default_rng(0).permutation(len(targets))
    part = shuffled[:TEST_SCANS] if split == "test" else shuffled[TEST_SCANS:]
    return part[targets[part] == value]


def _values(rng: np.random.Generator) -> list[int]:
    """Draw the digits of a canvas: frequent ones more often, successors together."""
    values = [_common(rng)]
    for _ in range(rng.integers(FEWEST, MOST + 1) - 1):
        follows = rng.random() < SUCCESSION
        values.append((values[-1] + 1) % len(NAMES) if follows else _common(rng))
    return values if 2 <= len(set(values)) <= 7 else _values(rng)


def _common(rng: np.random.Generator) -> int:
    return int(rng.choice(len(NAMES), p=FREQUENCY))


def _cells(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Draw patches as (row, column), no two of which touch, even at a corner."""
    cells: list[tuple[int, int]] = []
    for patch in rng.permutation(GRID * GRID).tolist():
        row, column = divmod(patch, GRID)
        if all(max(abs(row - down), abs(column - across)) > 1 for down, across in cells):
            cells.append((row, column))
        if len(cells) == count:
            break
    return list(map(np.array, cells))


def _ground(rng: np.random.Generator) -> np.ndarray:
    """Draw the empty canvas: uniform grey, blotches, and a finer grain."""
    blotches = rng.normal(0, TEXTURE, (SIDE // BLOTCH, SIDE // BLOTCH))
    grain = rng.normal(0, 0.7 * TEXTURE, (SIDE, SIDE))
    return rng.uniform(*GROUND) + blotches.repeat(BLOTCH, 0).repeat(BLOTCH, 1) + grain


@functools.cache
def _enlargement(size: int) -> np.ndarray:
    """Return the matrix [size, 8] that resizes a scan's columns bilinearly."""
    position = ((np.arange(size) + 0.5) * 8 / size - 0.5).clip(0, 7)
    return (1 - abs(position[:, None] - np.arange(8))).clip(min=0)
