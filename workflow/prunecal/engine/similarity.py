"""Cosine similarity between the visual tokens of an image, the same bits on every machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.engine.coverage import directions

if TYPE_CHECKING:
    import torch
    from torch import Tensor

UNIT = 2**23  # fixed point: a similarity of 1, and still exact as float32
ROWS = 144  # rows of a similarity matrix computed at a time


def exact_similarity(features: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return cosine similarities that are the same bits on every CPU, BLAS and device.

    A float32 product depends on the order in which a BLAS adds, so that two tokens whose gains are
    equal in exact arithmetic compare either way. Here the product is float64, its error 1e-16, and
    then rounded so much more coarsely that about one entry in 10^8 could ever round differently.
    In fixed point sums of similarities are exact as well, in whatever order they are added. The
    matrix is symmetric, and the diagonal is exactly 1 (0 for a token of norm zero).

    Args:
        features: [B, N, D].
        dtype: int32, the default, for multiples of 1 / `UNIT`; or a half precision, to which the
            tokens' directions and the products are rounded.

    Returns:
        [B, N, N] in `dtype`.
    """
    import torch

    dtype = dtype or torch.int32
    B, N, _ = features.shape
    similarity = features.new_empty(B, N, N, dtype=dtype)
    with torch.no_grad():
        for image in range(B):
            if dtype.is_floating_point:
                unit = directions(features[image].to(dtype)).double()
            else:
                unit = directions(features[image].double())
            scaled = unit if dtype.is_floating_point else unit * UNIT
            for start in range(0, N, ROWS):  # the lower triangle, a band of rows at a time
                stop = start + ROWS
                band = scaled[start:stop] @ unit[:stop].T
                if not dtype.is_floating_point:
                    band.round_()
                similarity[image, start:stop, :stop] = band
            lower = similarity[image].tril_()
            lower += lower.tril(-1).T
    return similarity


def double_similarity(features: Tensor) -> Tensor:
    """Return cosine similarities in float64, rounded to multiples of 2^-40.

    For methods whose result hangs on differences that a float32 loses; copies of a token tie.

    Args:
        features: [N, D] of one image.

    Returns:
        float64 [N, N], symmetric.
    """
    unit = directions(features.double())
    similarity = ((unit @ unit.T) * 2.0**40).round_().tril_()
    similarity += similarity.tril(-1).T
    return similarity * 2.0**-40
