"""Evidence coverage: how well kept visual tokens stand for the whole image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.core.errors import PrunecalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

AT_ONCE = 2**22  # similarities of kept sets that are compared at a time


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
            unit = directions(features[image].float())
            torch.mm(unit, unit.T, out=similarity[image])
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
            unit = directions(tokens.float())
            values.append(_mean_of_best(unit[row] @ unit.T))
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
    if isinstance(kept, torch.Tensor) and kept.dtype != torch.bool:
        some = max(1, AT_ONCE // (kept.shape[1] * similarity.shape[2] or 1))
        parts = zip(image.split(some), kept.split(some), strict=True)
        return torch.cat([_mean_of_best(similarity[at[:, None], rows]) for at, rows in parts])
    pairs = zip(image.tolist(), kept, strict=True)
    return torch.stack([_mean_of_best(similarity[index][row]) for index, row in pairs])


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


def directions(tokens: Tensor) -> Tensor:
    """Scale tokens [N, D] to norm 1; a zero token stays zero."""
    import torch

    norms = torch.linalg.vector_norm(tokens, dim=-1, keepdim=True)
    return tokens / norms.clamp_min(torch.finfo(tokens.dtype).tiny)


def _mean_of_best(similarity_of_kept: Tensor) -> Tensor:
    """Return the mean over tokens of the best similarity among kept rows [..., K, N]."""
    if similarity_of_kept.shape[-2] == 0:
        raise PrunecalError("coverage: a kept set is empty; keep at least one token")
    return similarity_of_kept.amax(dim=-2).float().mean(dim=-1)


def coverage_of_tokens(
    features: Tensor, tokens: Tensor | Sequence[Tensor], image: Tensor | None = None
) -> Tensor:
    """Return the coverage of sets of tokens that need not be patches, float32 [Q].

    Args:
        features: [B, N, D], the patches.
        tokens: [Q, K, D], for example sums of patches; a list may differ in K.
        image: int64 [Q], the image that each set belongs to; by default each has one of its own.
    """
    import torch

    patches = [directions(own.float()) for own in features]
    images = range(len(patches)) if image is None else image.tolist()
    pairs = zip(images, tokens, strict=True)
    return torch.stack(
        [_mean_of_best(directions(token.float()) @ patches[index].T) for index, token in pairs]
    )
