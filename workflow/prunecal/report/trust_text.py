"""May the confidence be used after pruning as before? The answer, in sentences made of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.core.errors import counted
from prunecal.figures import pooling
from prunecal.report import html
from prunecal.report.html import listed
from prunecal.report.trust_tables import risk_words, signed
from prunecal.statistics.thresholds import DELTA, RISK
from prunecal.statistics.trust import WORSE

if TYPE_CHECKING:
    import pandas as pd

    from prunecal.report.trust_tables import Trust

MANY = 20  # strategies at most that a sentence about the remaining ones lists


def answer(task: Trust) -> list[str]:
    """Say down to which budget each strategy is shown to be no worse, and what is below.

    Args:
        task: the tables of one model on one data set.
    """
    rows = task.strategies
    if rows.empty:
        return []
    if reason := rows["not_tested"].iloc[0]:
        return [f"It cannot be told: {reason}."]
    kept = rows[rows["smallest_budget"].notna()]
    sentences = _kept(task, kept) if len(kept) else _none(task)
    return [*sentences, *_others(task, kept), *_recalibrated(rows)]


def _kept(task: Trust, kept: pd.DataFrame) -> list[str]:
    """Say which strategies go down the furthest, and what becomes of the first below that."""
    smallest = int(kept["smallest_budget"].min())
    best = kept[kept["smallest_budget"] == smallest]
    last = ", the smallest of the study" if _next(task, best.iloc[0]) is None else ""
    names = f": {listed(best['series'])}" if len(best) <= MANY else ""
    return [
        f"{len(best)} of {counted(len(task.strategies), 'strategy', 'strategies')} "
        f"{'are' if len(best) > 1 else 'is'} shown to keep accuracy and calibration down to "
        f"{smallest} of {_unpruned(task)} tokens{last}{names}.",
        "That is, accuracy is shown to be lower by less than "
        f"{best['accuracy_margin'].iloc[0]:g}, and ECE to be higher by less than "
        f"{best['ece_margin'].iloc[0]:g}, than those of the unpruned model.",
        *_below(task, best.iloc[0], alone=len(best) == 1),
    ]


def _unpruned(task: Trust) -> int:
    """Return the number of visual tokens of the unpruned model."""
    return int(pooling.reference(task.thresholds)["budget"].iloc[0])


def _next(task: Trust, row: pd.Series) -> pd.Series | None:
    """Return the cell of a strategy at the budget below its smallest trustworthy one."""
    own = task.cells[task.cells["series"] == row["series"]]
    below = own[own["budget"] < row["smallest_budget"]]
    return None if below.empty else below.loc[below["budget"].idxmax()]


def _below(task: Trust, row: pd.Series, *, alone: bool) -> list[str]:
    """Say what happens to a strategy, one of several or alone, at the next smaller budget."""
    cell = _next(task, row)
    if cell is None:
        return []
    start = f"{'At' if alone else 'For example, at'} {cell['budget']} tokens"
    start += (
        f"{',' if not alone else ''} {row['series']} is worse by more than a margin"
        if cell["verdict"] == WORSE
        else f", whether {row['series']} is worse by more than a margin cannot be told"
    )
    text = (
        f"{start}: accuracy changes by {_change(cell, 'accuracy_delta')}, ECE by "
        f"{_change(cell, 'ece_delta')}, and it is {_overconfident(cell)}."
    )
    if cell["ece_temperature"] == cell["ece_temperature"]:
        text += (
            f" Refitting one temperature changes its ECE by {_change(cell, 'ece_refit_delta')}, to "
            f"{max(cell['ece_temperature'], 0):.3f}, and leaves its accuracy as it is."
        )
    risks = task.thresholds.set_index(["series", "budget"])
    risk = risks.loc[(row["series"], cell["budget"])]
    if risk["risk"] == risk["risk"]:
        text += (
            f" Keeping the unpruned model's threshold for {100 * RISK:g} % risk would make "
            f"{risk_words(risk)} of the accepted answers wrong."
        )
    return [text]


def _overconfident(cell: pd.Series) -> str:
    """Say by how much mean confidence is above, or below, accuracy."""
    value, low, high = (cell[f"overconfidence{end}"] for end in ("", "_low", "_high"))
    side = "over" if value > 0 else "under"
    if side == "under":
        value, low, high = -value, -high, -low
    size, *ends = (html.signed(one, plus=False) for one in (value, low, high))
    return f"{side}confident by {size}{f' [{ends[0]}, {ends[1]}]' if low == low else ''}"


def _change(cell: pd.Series, name: str) -> str:
    return signed(*(cell[f"{name}{end}"] for end in ("", "_low", "_high")))


def _none(task: Trust) -> list[str]:
    """Say that no strategy is shown to be no worse, and what could have been shown."""
    row = task.strategies.iloc[0]
    largest = task.cells[task.cells["budget"] == task.cells["budget"].max()]
    provable = largest["accuracy_provable"].median(), largest["ece_provable"].median()
    margins = row["accuracy_margin"], row["ece_margin"]
    sentence = (
        f"Tested, from the largest budget down, was accuracy lower by less than {margins[0]:g} and "
        f"ECE higher by less than {margins[1]:g} than those of the unpruned model."
    )
    if (task.cells["verdict"] != WORSE).any():
        equal = " Not shown does not mean worse: with these images, a model equal to the unpruned"
        if any(least > margin for least, margin in zip(provable, margins, strict=True)):
            sentence += (
                f"{equal} one is likely (80 %) to be shown to keep them only if the margins are at "
                f"least {provable[0]:.3f} in accuracy and {provable[1]:.3f} in ECE."
            )
        else:
            sentence += f"{equal} one is likely (80 %) to be shown to keep them."
    return ["No strategy is shown to keep accuracy and calibration at any budget.", sentence]


def _others(task: Trust, kept: pd.DataFrame) -> list[str]:
    """Say of the other strategies how far down they go, or whether they are worse."""
    later = kept[kept["smallest_budget"] > kept["smallest_budget"].min()]
    sentences = [
        f"Down to {budget:.0f} tokens: {listed(rows['series'])}."
        for budget, rows in later.groupby("smallest_budget")
    ]
    rest = task.strategies[task.strategies["smallest_budget"].isna()]
    largest = task.cells.sort_values("budget").drop_duplicates("series", keep="last")
    verdicts = largest.set_index("series")["verdict"]
    worse = [name for name in rest["series"] if verdicts[name] == WORSE]
    unclear = [name for name in rest["series"] if verdicts[name] != WORSE]
    if worse:
        names = listed(worse) if unclear else remaining(worse, len(verdicts))
        sentences.append(f"Worse by more than a margin already at the largest budget: {names}.")
    if unclear:
        names = remaining(unclear, len(verdicts))
        sentences.append(f"Cannot be told at the largest budget: {names}.")
    return sentences


def remaining(names: list[str], count: int) -> str:
    """Name those of `count` strategies that no sentence before named, one by one if few."""
    if len(names) <= MANY:
        return listed(names)
    return f"{'all' if len(names) == count else 'the other'} {len(names)} strategies"


def _recalibrated(rows: pd.DataFrame) -> list[str]:
    """Say which strategies go further down once a temperature is refitted."""
    column = "smallest_budget_recalibrated"
    further = rows[rows[column] < rows["smallest_budget"].fillna(float("inf"))]
    parts = [f"{row['series']} down to {row[column]:.0f} tokens" for _, row in further.iterrows()]
    if not parts:
        return []
    return [
        "With one temperature refitted to the pruned model on labelled images, accuracy and "
        f"calibration are kept further down: by {listed(parts)}."
    ]


def thresholds(task: Trust) -> list[str]:
    """Say what the unpruned model's threshold lets through after pruning."""
    if task.strategies["not_tested"].any():
        return []
    full = pooling.reference(task.thresholds).iloc[0]
    if full["threshold"] != full["threshold"]:
        return [
            f"The unpruned model has no threshold for {100 * RISK:g} % risk: its most confident "
            "answers are wrong more often."
        ]
    sentences = [
        f"The unpruned model can answer {_share(full['coverage'])} of these questions, those "
        f"with a confidence of at least {full['threshold']:.3f}, with {risk_words(full)} of the "
        "answers wrong."
    ]
    cells = pooling.pruned(task.thresholds)
    still = " that still answer with an option" if (cells["silent"] > 0).any() else ""
    cells = cells[cells["risk"].notna() & (cells["silent"] == 0)]
    if len(cells):
        above = cells["risk"] > RISK
        shown = (above & (cells["p_adjusted"] < pooling.LEVEL)).sum()
        sentences.append(
            f"With this threshold kept after pruning, more than {100 * RISK:g} % are wrong for "
            f"{above.sum()} of {counted(len(cells), 'pair')} of strategy and budget{still} "
            f"(shown for {shown}, adjusted p < {pooling.LEVEL:g}): "
            f"{100 * cells['risk'].median():.1f} % in the median, "
            f"{100 * cells['risk'].max():.1f} % at most."
        )
    return [*sentences, _guarantee(full)]


def _guarantee(full: pd.Series) -> str:
    """Say what a threshold with a guarantee costs the unpruned model."""
    risk, sure = f"{100 * RISK:g} %", f"{100 * (1 - DELTA):g} %"
    start = (
        f"Because it was chosen on these very answers, its risk on other images is above {risk} "
    )
    start += "about as often as not. "
    if full["coverage"] == 1:  # all answers are within the risk: nothing was chosen
        start = ""
    if full["guaranteed_threshold"] != full["guaranteed_threshold"]:
        return f"{start}No threshold can be guaranteed ({sure}) to stay below {risk} here."
    return (
        f"{start}A threshold that stays below {risk} with a guarantee of {sure} is "
        f"{full['guaranteed_threshold']:.3f}; it answers {_share(full['guaranteed_coverage'])}."
    )


def _share(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "less than 1 %"
