"""Sentences on how confidence is read: does the pruned model still answer, and does it matter?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunecal.calibration.constants import READOUTS
from prunecal.figures import pooling
from prunecal.figures.style import styles
from prunecal.statistics.selectors import ANSWER_RATES, ANSWERING

if TYPE_CHECKING:
    import pandas as pd

ECE = "ece_debiased"
NEARLY_ALL = 0.99  # of option mass: how it moves with the budget need not be told


def findings(
    metrics: pd.DataFrame, comparisons: pd.DataFrame, claims: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Say per data set and model how option mass moves, and whether the readout decides.

    Args:
        metrics: all metrics.
        comparisons: all differences from the unpruned model.
        claims: claims.json.

    Returns:
        dataset, model and sentences of each; nothing where the cells recorded option logits alone.
        The last entry, without a data set, is of the claims.
    """
    every = ["option_mass", *ANSWER_RATES, ECE, *(f"{ECE}_{name}" for name in READOUTS)]
    looks = styles(metrics)
    values = pooling.pool_seeds(pooling.headline(metrics, every), looks)
    changes = pooling.pool_seeds(pooling.headline(comparisons, [*every]), looks, column="delta")
    results = []
    for task in pooling.tasks(metrics):
        here, changed = pooling.of_task(values, task), pooling.of_task(changes, task)
        sentences = [*_mass(here), *_silent(here), *_decisive(changed)]
        if sentences:
            results.append({"dataset": task[1], "model": task[0], "sentences": sentences})
    if results and (words := _claims(claims)):
        results.append({"dataset": "", "model": "", "sentences": words})
    return results


def marked(table: pd.DataFrame, metrics: pd.DataFrame) -> pd.DataFrame:
    """Add the column `silent` to the first page's table: whether the cell stops answering.

    See `statistics.selectors.silent_cells`.

    Args:
        table: rows of strategies, seeds pooled.
        metrics: all metrics.
    """
    values = pooling.pool_seeds(pooling.headline(metrics, [*ANSWER_RATES]), styles(metrics))
    keys = ["model", "dataset", "series", "budget"]
    silent: set[tuple[str, ...]] = set()
    for task in pooling.tasks(values):
        stopped = _stopped(_rates(pooling.of_task(values, task)))
        silent |= set(stopped[keys].itertuples(index=False, name=None))
    rows = table[keys].itertuples(index=False, name=None)
    return table.assign(silent=[row in silent for row in rows])


def _stopped(rates: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the pruned models whose answer rate fell too far."""
    full = pooling.reference(rates)["value"]
    if full.empty:
        return rates[:0]
    pruned = pooling.pruned(rates)
    return pruned[pruned["value"] < ANSWERING * full.iloc[0]]


def _rates(here: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the answer rate, with spellings if they are known."""
    for name in ANSWER_RATES:
        rates = here[(here["metric"] == name) & here["value"].notna()]
        if len(rates):
            return rates
    return here[:0]


def _mass(here: pd.DataFrame) -> list[str]:
    mass = here[(here["metric"] == "option_mass") & here["value"].notna()]
    if mass.empty or pooling.reference(mass).empty:
        return []
    full = pooling.reference(mass)["value"].iloc[0]
    rates = pooling.reference(_rates(here))["value"]
    answers = (
        f" and answers {_percent(rates.iloc[0])} of the questions with one" if len(rates) else ""
    )
    sentence = (
        f"Among all words, the unpruned model gives {_percent(full)} of the probability to the "
        f"options{answers}."
    )
    pruned = pooling.pruned(mass)
    if len(pruned) and pruned["value"].min() >= NEARLY_ALL:
        low = pruned.loc[pruned["value"].idxmin()]
        least = f"{_percent(low['value'])} ({low['series']} at {low['budget']} tokens)"
        return [sentence, f"Option mass of the pruned models is at every budget at least {least}."]
    parts = []
    for budget in pooling.budgets(mass):
        cells = pruned[pruned["budget"] == budget]
        low = cells.loc[cells["value"].idxmin()]
        parts.append(
            f"{_percent(cells['value'].mean())} at {budget} tokens "
            f"(least {_percent(low['value'])}, {low['series']})"
        )
    over = f"Option mass of the pruned models, mean over strategies: {'; '.join(parts)}."
    return [sentence, over] if parts else [sentence]


def _silent(here: pd.DataFrame) -> list[str]:
    stopped = _stopped(_rates(here))
    if stopped.empty:
        return []
    cells = ", ".join(
        f"{row.series} at {row.budget} tokens ({100 * row.value:.0f} %)"
        for row in stopped.itertuples()
    )
    return [
        f"These stop answering with an option: {cells}. What their confidence over the options "
        "says is of answers that they would not give: the findings leave them out, and no verdict "
        "rests on them."
    ]


def _percent(share: float) -> str:
    """Return a share in per cent, with more decimals than one where it is nearly, but not all."""
    texts = [f"{100 * share:.{digits}f}" for digits in range(1, 7)]
    return f"{next((text for text in texts if float(text) < 100), texts[0])} %"


def _decisive(changed: pd.DataFrame) -> list[str]:
    """Say in how many cells the change of ECE goes another way under another readout."""
    keys = ["series", "budget"]
    record = changed[changed["metric"] == ECE].set_index(keys)
    sentences = []
    for name, readout in READOUTS.items():
        other = changed[changed["metric"] == f"{ECE}_{name}"].set_index(keys)
        other = other[other["delta"].notna()]
        if other.empty:
            continue
        sides = {key: (_side(record.loc[key]), _side(row)) for key, row in other.iterrows()}
        differ = {key: pair for key, pair in sides.items() if pair[0] != pair[1]}
        sentence = (
            f"Read {readout.label}, the change of ECE is judged as over the options in "
            f"{len(sides) - len(differ)} of {len(sides)} pairs of strategy and budget"
        )
        if differ:
            (series, budget), (first, second) = next(iter(differ.items()))
            sentence += (
                f"; in {len(differ)} it is not, for example {series} at {budget} tokens: {first} "
                f"over the options, {second} {readout.label}"
            )
        sentences.append(f"{sentence}.")
    return sentences


def _side(row: pd.Series) -> str:
    if not row["p_adjusted"] < pooling.LEVEL:
        return "not distinguishable"
    return "higher" if row["delta"] > 0 else "lower"


def _claims(claims: list[dict[str, Any]]) -> list[str]:
    """Say which claims have another verdict under another readout."""
    sentences = []
    for name, readout in READOUTS.items():
        read = {
            claim["id"]: (claim["verdict"], claim["evidence"]["readouts"][name])
            for claim in claims
            if name in claim["evidence"].get("readouts", {})
        }
        if not read:
            continue
        differ = [f"{key} ({a}, then {b})" for key, (a, b) in read.items() if a != b]
        if differ:
            verb = "has" if len(differ) == 1 else "have"
            words = f"{len(differ)} of {len(read)} claims {verb} another verdict"
            words += f": {', '.join(differ)}"
        else:
            words = f"none of the claims has another verdict (judged: {len(read)})"
        sentences.append(f"Read {readout.label}, {words}.")
    return sentences
