"""Budgets: how many visual tokens of an image are kept.

A number of tokens, a share of each image's tokens such as "25%", or "all" of them, the budget of
the unpruned model. For a model whose images all have the same number of tokens the budgets of a
study are numbers; where the number varies, shares stay shares, and an image with fewer tokens than
a number keeps all of them.
"""

import re

Budget = int | str


class Budgets(list[Budget]):
    """The budgets of a study, and what is equal between strategies at each (see `schedules`)."""

    match: str = "kept"


ALL = "all"
NOMINAL = "budget_tokens"  # in the metadata of cells of shares that keep other numbers of tokens
SHARE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,99})?)\s*%")


def share(text: str) -> float:
    """Return the share that a text such as "25%" means, 0.25."""
    return float(text.rstrip("% ")) / 100


def share_text(text: str) -> str:
    """Return a share in its one form: "11.10 %" is "11.1%"."""
    whole, _, part = text.rstrip("%").strip().partition(".")
    part = part.rstrip("0")
    return f"{int(whole)}.{part}%" if part else f"{int(whole)}%"


def kept_tokens(budget: Budget, tokens: int) -> int:
    """Return how many of an image's tokens a budget keeps, at least one.

    Args:
        budget: tokens, a share of them, or `ALL`.
        tokens: that the image has.
    """
    if budget == ALL:
        return tokens
    if isinstance(budget, str):
        return min(tokens, max(1, round(share(budget) * tokens)))
    return min(budget, tokens)


def folder(budget: Budget) -> str:
    """Return the name of a budget in paths: "64", "25pct", "all"."""
    return str(budget).replace("%", "pct")


def of_folder(name: str) -> str:
    """Return the budget of a folder's name, as a text: "64", "25%", "all"."""
    return re.sub("pct$", "%", name)


def fewest_first(budget: Budget) -> tuple[bool, float]:
    """Return a key that sorts budgets: numbers, then shares, `ALL` last."""
    if isinstance(budget, int):
        return False, budget
    return True, float("inf") if budget == ALL else share(budget)
