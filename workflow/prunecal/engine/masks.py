"""Which tokens of packed rows attend to which."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

    from prunecal.engine.rows import Before, Rows


def additive_mask(rows: Rows, system: int, dtype: torch.dtype, window: int | None) -> Tensor:
    """Return the additive attention mask [B, 1, T, S + T]; every token attends to itself.

    Args:
        rows: the packed rows.
        system: S, tokens of the text before them, at places 0 to S - 1 of every prompt.
        dtype: of the mask.
        window: tokens that a query attends to, itself included, counted in its own prompt.
    """
    if rows.before is not None:
        return _after(rows.before, rows, system, dtype, window)
    blocks = rows.blocks
    length = blocks.shape[1]
    if rows.ordered:
        seen = torch.ones(length, length, dtype=torch.bool, device=blocks.device).tril()
    else:
        seen = _places(rows)[:, :, None] >= _places(rows)[:, None, :]
    before, after = blocks[:, None, :], blocks[:, :, None]
    if rows.groups is not None:
        group = rows.groups[:, :, None]
        seen = seen | ((group >= 0) & (group == rows.groups[:, None, :]))
    seen = seen & ((before == 0) | (before == after))
    if window is None:
        past_seen = None
    else:
        place, past_place = _places(rows)[:, :, None], torch.arange(system, device=blocks.device)
        seen = seen & (place - _places(rows)[:, None, :] < window)
        past_seen = place - past_place < window
    mask = torch.zeros(seen.shape, dtype=dtype, device=blocks.device)
    mask = mask.masked_fill_(~seen, -torch.inf)
    if past_seen is None:
        return functional.pad(mask, (system, 0))[:, None]
    past_mask = torch.zeros(past_seen.shape, dtype=dtype, device=blocks.device)
    past_mask = past_mask.masked_fill_(~past_seen, -torch.inf)
    return torch.cat((past_mask, mask), dim=2)[:, None]


def _after(
    earlier: Before, rows: Rows, system: int, dtype: torch.dtype, window: int | None
) -> Tensor:
    """Return the mask [B, 1, T, S + E + T] of rows behind E columns."""
    every = earlier.then(rows)
    text = every.blocks.new_zeros(len(every.blocks), system)
    blocks = torch.cat((text, every.blocks), dim=1)[:, None, :]
    seen = (blocks == 0) | (blocks == rows.blocks[:, :, None])
    if window is not None:
        text = torch.arange(system, device=text.device).expand_as(text)
        places = torch.cat((text, every.places), dim=1)
        seen &= _places(rows)[:, :, None] - places[:, None, :] < window
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, -torch.inf)[:, None]


def _places(rows: Rows) -> Tensor:
    if rows.places is None:
        raise ValueError("sliding windows and unordered columns count places; give Rows.places")
    return rows.places
