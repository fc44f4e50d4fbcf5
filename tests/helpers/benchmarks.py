"""Benchmarks in the layouts of others: pictures in texts, and what a loader makes of a file."""

import base64
import io
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from prunecal.core.errors import PrunecalError
from prunecal.datasets import check


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def text(seed: int) -> str:
    return base64.b64encode(png(seed)).decode()


def load(loader: ModuleType, path: Path, **settings) -> tuple[list[dict], list[tuple[str, bytes]]]:
    """Return the questions and images of a file."""
    dataset = loader.load(loader.Params(path=path, **settings))
    check("test", dataset.questions)
    return dataset.questions.to_dict("records"), list(dataset.images)


def refusal(loader: ModuleType, path: Path, **settings) -> str:
    """Return the one line by which a file is refused."""
    with pytest.raises(PrunecalError) as caught:
        load(loader, path, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)
