"""Which patches of the image the visual tokens hold that are left inside the decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from prunecal.engine.coverage import cosine_similarity, coverage_of_sets, coverage_of_tokens

if TYPE_CHECKING:
    from torch import Tensor

    from prunecal.engine.interfaces import Reduction


@dataclass
class Held:
    """Which patches each question's current visual tokens hold.

    Attributes:
        patch: int64 [Q, V], the patch that a token is; -1 - m if it is merged token m.
        merged: float32 [Q, M, N], the patches' weights in the merged tokens.
    """

    patch: Tensor
    merged: Tensor

    def after(self, reduction: Reduction) -> Held:
        """Return what the tokens hold after a reduction."""
        kept, merged = self.patch.gather(1, reduction.kept), self.merged
        if reduction.merged is not None:
            added = self.over_patches(reduction.merged.float())
            numbers = torch.arange(merged.shape[1], merged.shape[1] + added.shape[1])
            kept = torch.cat((kept, (-1 - numbers).to(kept.device).expand(len(kept), -1)), dim=1)
            merged = torch.cat((merged, added), dim=1)
        return Held(kept, merged)

    def over_patches(self, weights: Tensor) -> Tensor:
        """Return weights of patches [Q, M, N] from weights of the current tokens [Q, M, V]."""
        is_patch = self.patch >= 0
        result = weights.new_zeros(*weights.shape[:2], self.merged.shape[2])
        index = self.patch.clamp(min=0)[:, None].expand_as(weights)
        result.scatter_add_(2, index, weights * is_patch[:, None])
        if self.merged.shape[1]:
            number = (-1 - self.patch).clamp(min=0)[:, None].expand_as(weights)
            shares = weights.new_zeros(*weights.shape[:2], self.merged.shape[1])
            shares.scatter_add_(2, number, weights * ~is_patch[:, None])
            result += shares @ self.merged
        return result

    def within_merged(self) -> Tensor | None:
        """Return which patches the merged tokens hold that are left, bool [Q, N]; None if none."""
        count = self.merged.shape[1]
        if not count:
            return None
        numbers = torch.arange(count, device=self.patch.device)
        left = (self.patch[:, :, None] == -1 - numbers).any(dim=1)  # [Q, M]
        return ((self.merged > 0) & left[:, :, None]).any(dim=1)

    def coverage(self, features: Tensor, row: Tensor) -> Tensor:
        """Return the evidence coverage float32 [Q] of each question's tokens.

        Args:
            features: [B, N, D], the vision features of the micro-batch's rows.
            row: int64 [Q], the row of each question.
        """
        if not self.merged.shape[1]:
            return coverage_of_sets(cosine_similarity(features), self.patch, row)
        patches = features.float()
        tokens = []
        for patch, merged, index in zip(self.patch, self.merged, row.tolist(), strict=True):
            sums = merged[-1 - patch[patch < 0]] @ patches[index]
            tokens.append(torch.cat((patches[index][patch[patch >= 0]], sums)))
        return coverage_of_tokens(patches, tokens, row)
