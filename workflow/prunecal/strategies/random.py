"""A random ranking of tokens, the baseline that every selection rule has to beat."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from pydantic import Field

from prunecal.core.errors import PrunecalError
from prunecal.strategies._vision import VisionParams

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from prunecal.strategies import Images

LABEL = "Random"
PRUNES = "before_llm"


class Params(VisionParams):
    """Settings of the random baseline."""

    seed: int = Field(
        0,
        ge=0,
        lt=2**63,
        description="Seed of the permutations; with the image's id it determines each of them.",
        json_schema_extra={"named": True},
    )


def rank(images: Images, budget: int, params: Params) -> Tensor:
    """Permute each image's tokens by a generator keyed by (seed, image id) alone.

    Batch order and batch composition never matter, and smaller budgets are prefixes.

    Returns:
        int64 [B, budget].

    Raises:
        PrunecalError: no image ids were given.
    """
    import numpy as np
    import torch

    if images.ids is None:
        raise PrunecalError("random: image_ids is missing; pass one id for each image")
    number_of_tokens = images.features.shape[1]
    keys = np.stack(
        [_generator(params.seed, image).random_raw(number_of_tokens) for image in images.ids]
    )
    order = keys.argsort(axis=-1, kind="stable")[:, :budget]
    return torch.from_numpy(order.astype(np.int64)).to(images.features.device)


def _generator(seed: int, image_id: str) -> np.random.PCG64:
    """Return the PCG64 stream of one image; NumPy promises its raw bits for all versions."""
    import numpy as np

    digest = hashlib.sha256(f"{seed}\0{image_id}".encode()).digest()
    return np.random.PCG64(int.from_bytes(digest, "big"))
