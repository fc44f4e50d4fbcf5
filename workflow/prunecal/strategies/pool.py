"""Average pooling: the token grid averaged to the budget's own grid, a baseline without attention.

Each token is the mean of the patches in a cell of the image, weighted by the area that they have in
it. At a budget of one token per patch nothing changes. (Averages of features, before the
projector; arXiv 2510.07143 finds that reducing an image plainly beats many pruning methods.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.core.parameters import Parameters
from prunecal.strategies._grid import cells

if TYPE_CHECKING:
    from torch import Tensor

    from prunecal.strategies import Images

LABEL = "Average pooling"
PRUNES = "before_llm"


class Params(Parameters):
    """Pooling has no parameters."""


def merge(images: Images, budget: int, params: Params) -> Tensor:
    """Return the share of each patch in each cell, [B, budget, N + 1]."""
    import torch

    count, tokens, _ = images.features.shape
    weights = images.features.new_zeros(budget, tokens)
    for number, cell in enumerate(cells(images, budget)):
        rows = _overlap(cell.top, cell.bottom, cell.rows)
        columns = _overlap(cell.left, cell.right, cell.columns)
        shares = torch.outer(rows, columns).to(weights) / float(rows.sum() * columns.sum())
        weights[number, cell.first : cell.first + shares.numel()] = shares.flatten()
    return torch.nn.functional.pad(weights, (1, 0)).expand(count, -1, -1).clone()


def _overlap(start: float, end: float, patches: int) -> Tensor:
    """Return how much of each patch of a line lies between two points, float64."""
    import torch

    edges = torch.arange(patches + 1, dtype=torch.float64)
    return (edges[1:].clamp(max=end) - edges[:-1].clamp(min=start)).clamp(min=0)
