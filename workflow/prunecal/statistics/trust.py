"""Is a strategy at a budget no worse than the unpruned model, and down to which budget?

Over all questions (subset "all"), by margins that the study states. Seeds of one strategy count as
one, by their mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from prunecal.calibration.constants import LEVEL
from prunecal.statistics.bootstrap import interval, normal_interval
from prunecal.statistics.noninferiority import noninferiority_p, passed, provable_margin
from prunecal.statistics.significance import step_down

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from prunecal.statistics.tables import Rows
    from prunecal.statistics.task import Measure, Task

NO_WORSE, WORSE, UNKNOWN = "no worse", "worse", "cannot be told"


def trust_rows(task: Task, level: float) -> tuple[Rows, Rows]:
    """Return a row per strategy, and a row per strategy and budget.

    A cell is "no worse" if its accuracy is shown to be lower by less than the margin and its
    ECE to be higher by less than the margin, both within one family of tests: the
    larger of the two p-values of `noninferiority_p`, in `passed`, a chain per strategy from its
    largest budget down. So with a chance of at most 5 % any cell of a model and data set is called
    no worse that is worse by a margin or more. Calibration is compared by debiased ECE, the
    unpruned model's by the cross-fitted one. A cell is "worse" if accuracy or debiased ECE is shown
    to be worse by more than the margin, by `step_down` on the differences less the margin, over all
    strategies, budgets and the two metrics. Else it cannot be told. A cell that has stopped
    answering with an option is not "no worse". `verdict_recalibrated` asks the
    same of the ECE after refitting one temperature to the pruned model, another family of tests.
    With too few images, or where the unpruned model is at chance, nothing can be told, no p-value
    is given, and `not_tested` says why.
    """
    if not task.series:
        return [], []
    margins = task.margins
    lost = task.unpruned("accuracy") - task.measure("accuracy")
    gained = task.measure("ece_debiased") - task.unpruned("ece_debiased")
    # noise has no part in it, where it would make the unpruned model look worse than it is and a
    # pruned one as good: debiased ECE is too high, by up to 0.006, where the true one is near 0
    unpruned_ece = task.unpruned("ece_cross_fitted")
    safe = task.measure("ece_debiased") - unpruned_ece
    refitted = task.measure("ece_temperature") - unpruned_ece
    recalibrated = task.measure("ece_temperature") - task.unpruned("ece_debiased")
    refit = task.measure("ece_temperature") - task.measure("ece_debiased")
    over = task.measure("overconfidence")
    count = len(task.images[0])
    strategies = len({one.name for one in task.series})
    tests = ((lost, "accuracy"), (safe, "ece"), (refitted, "ece"))
    p = np.stack([noninferiority_p(*harm, margins[key], count) for harm, key in tests])
    p[:, task.silent] = 1.0  # its confidence is of answers that it does not give
    if reason := task.why_not_tested(level):
        p[:] = np.nan
    numbers = {
        "accuracy_delta": -lost.value,
        "p_accuracy": p[0],
        "ece_delta": gained.value,
        "p_ece": p[1],
        "ece_recalibrated_delta": recalibrated.value,
        "p_recalibrated": p[2],
        "overconfidence": over.value,
        "ece_refit_delta": refit.value,
        "ece_debiased": task.measure("ece_debiased").value,
        "ece_temperature": task.measure("ece_temperature").value,
        "accuracy_provable": provable_margin(lost.draws, strategies, count),
        "ece_provable": provable_margin(safe.draws, strategies, count),
    }
    for name, ends in {
        "accuracy_delta": interval(-lost.draws, level),
        "ece_delta": normal_interval(*gained, level),
        "ece_refit_delta": normal_interval(*refit, level),
        "overconfidence": interval(over.draws, level),
    }.items():
        numbers |= {f"{name}_low": ends[0], f"{name}_high": ends[1]}
    judged = {
        "verdict": (np.maximum(p[0], p[1]), (lost, gained)),
        "verdict_recalibrated": (np.maximum(p[0], p[2]), (lost, recalibrated)),
    }
    unknown = [UNKNOWN] * len(task.series)
    verdicts = {key: unknown if reason else _verdicts(task, *of) for key, of in judged.items()}
    cells = [
        task.keys(one)
        | {key: column[index] for key, column in numbers.items()}
        | {key: column[index] for key, column in verdicts.items()}
        for index, one in enumerate(task.series)
    ]
    rows = []
    for name in dict.fromkeys(one.name for one in task.series):
        own = [cell for cell, one in zip(cells, task.series, strict=True) if one.name == name]
        rows.append(
            {key: own[0][key] for key in ("model", "dataset", "strategy", "family", "seeds")}
            | _reached(own)
            | {"smallest_budget_recalibrated": _smallest(own, "verdict_recalibrated")}
            | {"accuracy_margin": margins["accuracy"], "ece_margin": margins["ece"]}
            | {"n_images": count, "not_tested": reason}
        )
    return rows, cells


def _reached(cells: Rows) -> dict[str, Any]:
    """Return how far down a strategy is no worse, and the next budget with its verdict."""
    rest = [cell for cell in cells if cell["verdict"] != NO_WORSE]
    return {
        "smallest_budget": _smallest(cells, "verdict"),
        "next_budget": rest[0]["budget"] if rest else None,
        "at_next": rest[0]["verdict"] if rest else None,
    }


def _smallest(cells: Rows, verdict: str) -> int | None:
    """Return the smallest budget of a strategy that is no worse; all larger ones are, too."""
    return min((cell["budget"] for cell in cells if cell[verdict] == NO_WORSE), default=None)


def _verdicts(task: Task, p: NDArray, harms: tuple[Measure, Measure]) -> list[str]:
    """Return the verdict on each series: see `trust_rows`."""
    verdicts = [UNKNOWN] * len(p)
    margins = (task.margins["accuracy"], task.margins["ece"])
    shared = min(harm.draws.shape[1] for harm in harms)
    beyond = [harm.value - margin for harm, margin in zip(harms, margins, strict=True)]
    draws = [harm.draws[:, :shared] for harm in harms]
    draws = [np.broadcast_to(one, (len(p), shared)) for one in draws]
    family = np.concatenate(beyond), np.concatenate(draws), len(task.images[0])
    worse = step_down(*family).reshape(2, -1) < LEVEL
    chains: dict[str, list[int]] = {}
    for index, one in enumerate(task.series):
        chains.setdefault(one.name, []).append(index)
    counts = passed({name: p[places].tolist() for name, places in chains.items()}, LEVEL)
    for name, places in chains.items():
        for position, at in enumerate(places):
            if position < counts[name]:
                verdicts[at] = NO_WORSE
            elif any(side[at] and over[at] > 0 for side, over in zip(worse, beyond, strict=True)):
                verdicts[at] = WORSE
    return verdicts
