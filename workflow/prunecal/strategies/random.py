"""A random order of tokens, the baseline that every selection rule has to beat."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from pydantic import Field

from prunecal.core.errors import PrunecalError
from prunecal.strategies._vision import VisionStrategy

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

LABEL = "Random"
PLACE = "vision"


class Params(VisionStrategy):
    """Settings of the random baseline."""

    seed: int = Field(
        0,
        ge=0,
        lt=2**63,
        description="Seed of the permutations; with the image's id it determines each of them.",
        json_schema_extra={"named": True},
    )


def rank(
    features: Tensor, saliency: Tensor, budget: int, params: Params, image_ids: list[str] | None
) -> Tensor:
    """Permute each image's tokens by a generator keyed by (seed, image id) alone.

    Batch order and batch composition never matter, and smaller budgets are prefixes.

    Returns:
        int64 [B, budget].

    Raises:
        PrunecalError: no image ids were given.
    """
    del saliency
    import numpy as np
    import torch

    if image_ids is None:
        raise PrunecalError("random: image_ids is missing; pass one id for each image")
    number_of_tokens = features.shape[1]
    keys = np.stack(
        [_generator(params.seed, image).random_raw(number_of_tokens) for image in image_ids]
    )
    order = keys.argsort(axis=-1, kind="stable")[:, :budget]
    return torch.from_numpy(order.astype(np.int64)).to(features.device)


def _generator(seed: int, image_id: str) -> np.random.PCG64:
    """Return the PCG64 stream of one image; NumPy promises its raw bits for all versions."""
    import numpy as np

    digest = hashlib.sha256(f"{seed}\0{image_id}".encode()).digest()
    return np.random.PCG64(int.from_bytes(digest, "big"))
