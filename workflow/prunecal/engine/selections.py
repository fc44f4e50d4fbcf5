"""What the functions of strategies return, checked before anything is computed from it."""

from __future__ import annotations

from dataclasses import astuple
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch

from prunecal.core.errors import PrunecalError, brief
from prunecal.engine.interfaces import Reduction, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType


def function_of(strategy: ModuleType, name: str) -> str:
    """Name a strategy's function and its file, for a message."""
    return f"`{name}` of the strategy {strategy.__name__} ({strategy.__file__})"


def refuse_other_tokens(what: str, kept: Any, rows: int, count: int, tokens: int) -> None:
    """Refuse anything but `count` different tokens in each row.

    Args:
        what: names the function that returned them.
        kept: should be int64 [rows, count], indices of tokens.
        rows: images, or questions.
        count: tokens to keep of each.
        tokens: of which they are kept.

    Raises:
        PrunecalError: the type or the shape is another, or an index is out of range or repeated.
    """
    _refuse_form(what, kept, (rows, count), "int64", "indices of tokens")
    ordered = kept.sort(dim=1).values
    outside = (ordered < 0) | (ordered >= tokens)
    repeated = ordered[:, 1:] == ordered[:, :-1]
    if not outside.any() | repeated.any():  # once, as a GPU is waited for
        return
    wrong = outside.any(dim=1) | repeated.any(dim=1)
    row = int(wrong.nonzero()[0])
    fault = f"a token twice among the {count} of"
    if outside.any():
        row = int(outside.any(dim=1).nonzero()[0])
        fault = f"the token {int(ordered[row][outside[row]][0])} in"
    raise PrunecalError(
        f"{what} returned {fault} row {row}; have it return different indices from 0 to "
        f"{tokens - 1}"
    )


def refuse_other_weights(what: str, weights: Any, shape: Sequence[int]) -> None:
    """Refuse anything but weights of a shape that are finite and not negative.

    Raises:
        PrunecalError: the type or the shape is another, or a weight is negative, NaN or infinite.
    """
    _refuse_form(what, weights, shape, "float", "weights of tokens")
    if not ((weights >= 0) & weights.isfinite()).all():
        raise PrunecalError(
            f"{what} returned weights that are negative, NaN or infinite; have it return finite "
            "ones of at least 0"
        )


def refuse_other_budget(strategy: ModuleType, stages: Any, budget: int, tokens: int) -> None:
    """Refuse what `stages` returned for a budget, unless the last stage leaves so many tokens.

    Raises:
        PrunecalError: it does not, or there is no stage.
    """
    what = function_of(strategy, "stages")
    if not isinstance(stages, list) or not all(map(_is_stage, stages)):
        raise PrunecalError(
            f"{what} returned {brief(stages)}; have it return a list of Stage, with whole numbers"
        )
    left = stages[-1].entering if stages else tokens
    if left != budget:
        raise PrunecalError(
            f"{what} leaves {left} of {tokens} visual tokens at a budget of {budget}; have its "
            f"last stage leave {budget}"
        )


def refuse_other_reduction(
    strategy: ModuleType, reduction: Any, stage: Stage, rows: int, tokens: int
) -> None:
    """Refuse what `select` returned, unless it is the stage's number of tokens for each question.

    Raises:
        PrunecalError: it is not.
    """
    what = function_of(strategy, "select")
    if not isinstance(reduction, Reduction):
        raise PrunecalError(f"{what} returned {_form(reduction)}; have it return a Reduction")
    refuse_other_tokens(what, reduction.kept, rows, stage.keep, tokens)
    if stage.merge or reduction.merged is not None:
        refuse_other_weights(what, reduction.merged, (rows, stage.merge, tokens))


def _is_stage(stage: Any) -> bool:
    return isinstance(stage, Stage) and all(isinstance(one, Integral) for one in astuple(stage))


def _refuse_form(what: str, values: Any, shape: Sequence[int], kind: str, meaning: str) -> None:
    if (
        not isinstance(values, torch.Tensor)
        or values.shape != tuple(shape)
        or (values.dtype != torch.int64 if kind == "int64" else not values.is_floating_point())
    ):
        raise PrunecalError(
            f"{what} returned {_form(values)}; have it return {kind} {list(shape)}, {meaning}"
        )


def _form(values: Any) -> str:
    """Return the type and the shape of what should be a tensor, for a message."""
    if isinstance(values, torch.Tensor):
        return f"{str(values.dtype).removeprefix('torch.')} {list(values.shape)}"
    return "nothing" if values is None else f"an object of the type {type(values).__name__}"
