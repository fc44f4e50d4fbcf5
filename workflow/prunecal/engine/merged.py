"""Visual tokens that are sums of an image's CLS and patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from prunecal.core.errors import PrunecalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class Merged:
    """The merged tokens of all images of a data set, from their weights.

    Args:
        places: int64, flat places of the weights [K, N + 1] of all rows, ascending; source 0 is
            CLS. A row is an image, or an image with a question.
        weight: float32, the weights there.
        starts: where the weights of each row begin, and where the last ones end.
        cls: [I, 1, D], the state of CLS; None if it has no weight.
    """

    def __init__(
        self, places: np.ndarray, weight: np.ndarray, starts: Sequence[int], cls: Tensor | None
    ) -> None:
        self.cls = cls
        self._places, self._weight, self._starts = places, weight, starts

    def tokens(self, row: int, image: int, features: Tensor) -> Tensor:
        """Return the tokens [K, D] of a row, summed in float32.

        Args:
            row: its index.
            image: the index of its image.
            features: [N, D], its patches.

        Raises:
            PrunecalError: the weights are of other images or patches.
        """
        first, behind = self._starts[row], self._starts[row + 1]
        start, end = np.searchsorted(self._places, [first, behind])
        weights = torch.zeros(behind - first)
        weights[torch.from_numpy(self._places[start:end] - first)] = torch.from_numpy(
            self._weight[start:end]
        )
        sources = len(features) + 1
        weights = weights[: len(weights) // sources * sources].view(-1, sources)
        if len(weights) * sources != behind - first or not bool((weights != 0).any(dim=1).all()):
            raise PrunecalError(
                "the ranking is of other images or tokens than the features; delete the "
                "strategy's ranking.safetensors and run snakemake again"
            )
        cls = torch.zeros_like(features[:1]) if self.cls is None else self.cls[image]
        states = torch.cat((cls.to(features.dtype), features)).float()
        return (weights @ states).to(features.dtype)
