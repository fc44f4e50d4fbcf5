"""Cosine similarity between the visual tokens of an image, and coverage by a kept set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.core.errors import PrunecalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor

UNIT = 2**23  # fixed point: a similarity of 1, and still exact as float32
ROWS = 144  # rows of a similarity matrix computed at a time


def cosine_similarity(features: Tensor) -> Tensor:
    """Return S_ij = cos(i, j) between the tokens of each image.

    A token of norm zero has similarity 0 to every token, itself included. One matrix product per
    image, so that neighbours in the batch never change an image's bytes.

    Args:
        features: [B, N, D].

    Returns:
        float32 [B, N, N].
    """
    import torch

    B, N, _ = features.shape
    similarity = features.new_empty(B, N, N, dtype=torch.float32)
    with torch.no_grad():
        for image in range(B):
            directions = _directions(features[image].float())
            torch.mm(directions, directions.T, out=similarity[image])
    return similarity


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
                directions = _directions(features[image].to(dtype)).double()
            else:
                directions = _directions(features[image].double())
            scaled = directions if dtype.is_floating_point else directions * UNIT
            for start in range(0, N, ROWS):  # the lower triangle, a band of rows at a time
                stop = start + ROWS
                band = scaled[start:stop] @ directions[:stop].T
                if not dtype.is_floating_point:
                    band.round_()
                similarity[image, start:stop, :stop] = band
            lower = similarity[image].tril_()
            lower += lower.tril(-1).T
    return similarity


def coverage(features: Tensor, kept: Tensor | Sequence[Tensor]) -> Tensor:
    """Return the evidence coverage of one kept set per image, between -1 and 1.

    Coverage is the mean over all tokens i of the max over kept tokens j of cos(i, j): how well the
    kept tokens stand for the whole image.

    Args:
        features: [B, N, D].
        kept: bool [B, N], or indices int64 [B, K]; a list of B rows may differ in K.

    Returns:
        float32 [B].

    Raises:
        PrunecalError: a kept set is empty, or the number of sets is not the number of images.
    """
    import torch

    if len(kept) != len(features):
        raise PrunecalError(
            f"coverage: {len(kept)} kept sets for {len(features)} images; give one for each"
        )
    values = []
    with torch.no_grad():
        for tokens, row in zip(features, kept, strict=True):
            directions = _directions(tokens.float())
            values.append(_mean_of_best(directions[row] @ directions.T))
    return torch.stack(values)


def coverage_of_sets(similarity: Tensor, kept: Tensor | Sequence[Tensor], image: Tensor) -> Tensor:
    """Return the coverage of many kept sets per image, from similarities computed once.

    Args:
        similarity: [B, N, N], as `cosine_similarity` returns it.
        kept: bool [Q, N], or indices int64 [Q, K]; a list of Q rows may differ in K.
        image: int64 [Q], the image that each set belongs to.

    Returns:
        float32 [Q].

    Raises:
        PrunecalError: a kept set is empty, or the numbers of sets and of image indices differ.
    """
    import torch

    if len(kept) != len(image):
        raise PrunecalError(
            f"coverage: {len(kept)} kept sets for {len(image)} image indices; give one for each"
        )
    rows = zip(image.tolist(), kept, strict=True)
    return torch.stack([_mean_of_best(similarity[index][row]) for index, row in rows])


def coverage_curve(similarity: Tensor, order: Tensor) -> Tensor:
    """Return the coverage of the first 1 ... K tokens of an order, all prefixes in one pass.

    Args:
        similarity: float32 [B, N, N], as `cosine_similarity` returns it.
        order: int64 [B, K], tokens in order of selection.

    Returns:
        float32 [B, K].
    """
    import torch

    curves = [
        image[row].cummax(dim=0).values.mean(dim=1)
        for image, row in zip(similarity, order, strict=True)
    ]
    return torch.stack(curves)


def _directions(tokens: Tensor) -> Tensor:
    """Scale tokens [N, D] to norm 1; a zero token stays zero."""
    import torch

    norms = torch.linalg.vector_norm(tokens, dim=-1, keepdim=True)
    return tokens / norms.clamp_min(torch.finfo(tokens.dtype).tiny)


def _mean_of_best(similarity_of_kept: Tensor) -> Tensor:
    """Return the mean over tokens of the best similarity among kept rows [K, N]."""
    if len(similarity_of_kept) == 0:
        raise PrunecalError("coverage: a kept set is empty; keep at least one token")
    return similarity_of_kept.amax(dim=0).float().mean()
