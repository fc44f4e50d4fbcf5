"""The sentences of the report's first page: findings, and the limits of what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunecal.figures import pooling
from prunecal.figures.style import styles
from prunecal.statistics.significance import FEWEST_IMAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from prunecal.study.cells import Study

TOLD = ["accuracy", "ece_debiased", "overconfidence"]  # metrics that the findings mention
QUESTION = (
    "When most of an image's visual tokens are dropped to save computation, does the model's "
    "confidence still tell how likely its answer is right?"
)


def join(metrics: pd.DataFrame, comparisons: pd.DataFrame, matched: pd.DataFrame) -> pd.DataFrame:
    """Join the page's metrics with their differences from the unpruned model, seeds pooled.

    Args:
        metrics: all metrics.
        comparisons: all differences.
        matched: matched.csv: the change of ECE beyond that of accuracy.

    Returns:
        The columns of `pooling.pool_seeds`; delta and p_adjusted, missing where not compared; and
        beyond and beyond_p of the rows of ECE: its change beyond that of accuracy and its p-value.
    """
    looks = styles(metrics)
    keys = ["model", "dataset", "metric", "series", "budget"]
    values = pooling.pool_seeds(pooling.headline(metrics, TOLD), looks)
    debiased = values["metric"] == "ece_debiased"  # what noise takes below 0
    values["value"] = values["value"].mask(debiased, values["value"].clip(lower=0))
    deltas = pooling.pool_seeds(pooling.headline(comparisons, TOLD), looks, column="delta")
    rests = matched.assign(subset=pooling.HEADLINE_SUBSET, metric="ece_debiased")
    rests = pooling.pool_seeds(rests, looks, column="beyond")
    rests = rests.rename(columns={"p_adjusted": "beyond_p"})
    joined = values.merge(deltas[[*keys, "delta", "p_adjusted"]], on=keys, how="left")
    joined = joined.merge(rests[[*keys, "beyond", "beyond_p"]], on=keys, how="left")
    order = pooling.tasks(metrics)
    task = [order.index(pair) for pair in zip(joined["model"], joined["dataset"], strict=True)]
    return joined.assign(task=task).sort_values(["task", "place", "budget"], kind="stable")


def findings(table: pd.DataFrame, selected: pd.DataFrame) -> list[dict[str, Any]]:
    """Say per data set and model what the table shows.

    Args:
        table: from `join`.
        selected: selected.csv, with the column series, strategies' names.

    Returns:
        dataset, model, accuracy and ece of the unpruned model as text with their intervals, pairs
        (of strategy and budget that are compared with it) and sentences, none where nothing is
        pruned.
    """
    results = []
    for task in pooling.tasks(table):
        here = pooling.of_task(table, task)
        every = [here[here["metric"] == metric] for metric in TOLD]
        full = [_measured(pooling.reference(cells).iloc[0]) for cells in every]
        accuracy, ece, over = map(pooling.pruned, every)
        images = pooling.reference(every[0])["n_images"].iloc[0]
        sentences = []
        if images < FEWEST_IMAGES and not ece.empty:
            sentences = [
                f"{images} images are too few to tell a difference from chance: at least "
                f"{FEWEST_IMAGES} are needed. The numbers describe these images alone."
            ]
        elif not ece.empty:
            sentences = [
                f"ECE is {_counted(ece)}.",
                f"Accuracy is {_counted(accuracy)}.",
                f"Overconfidence, mean confidence minus accuracy, is {_counted(over)}.",
                *_explained(ece),
                *_lowest(ece, pooling.of_task(selected, task)),
                *_highest(accuracy, pooling.of_task(selected, task)),
            ]
        results.append(
            {
                "dataset": task[1],
                "model": task[0],
                "accuracy": full[0],
                "ece": full[1],
                "pairs": len(ece),
                "sentences": sentences,
            }
        )
    return results


def _measured(row: pd.Series) -> str:
    """Return a value with its interval, if it has one."""
    ends = f" [{row['low']:.3f}, {row['high']:.3f}]" if row["low"] == row["low"] else ""
    return f"{row['value']:.3f}{ends}"


def _lowest(ece: pd.DataFrame, selected: pd.DataFrame) -> list[str]:
    """Say which cell has the lowest ECE, with an interval for a selected one."""
    return [
        f"The lowest ECE of a pruned model is {row['value']:.3f}{words}, {_compared(row)}: "
        f"{row['series']} at {row['budget']} tokens."
        for row, words in _selected(ece, selected)
        if len(ece) > 1
    ]


def _highest(accuracy: pd.DataFrame, selected: pd.DataFrame) -> list[str]:
    """Say which strategy has the highest accuracy at the smallest budget."""
    return [
        f"At the smallest budget, {row['budget']} tokens, {row['series']} keeps the highest "
        f"accuracy, {row['value']:.3f}{words}, {_compared(row)}."
        for row, words in _selected(accuracy, selected)
        if accuracy["series"].nunique() > 1
    ]


def _selected(cells: pd.DataFrame, selected: pd.DataFrame) -> Iterator[tuple[pd.Series, str]]:
    """Yield the cell of a metric that was selected as the best, and the words that say so."""
    for best in selected[selected["metric"] == cells["metric"].iloc[0]].to_dict("records"):
        own = (cells["series"] == best["series"]) & (cells["budget"] == best["budget"])
        among = f"selected as the best of {best['among']}"
        if best["ci_low"] == best["ci_low"]:
            ends = f"[{best['ci_low']:.3f}, {best['ci_high']:.3f}]"
            yield cells[own].iloc[0], f" {ends} ({among}, for which the interval is corrected)"
        else:
            yield cells[own].iloc[0], f" ({among})"


def _counted(cells: pd.DataFrame) -> str:
    """Say in how many cells a metric differs from the unpruned model's, and which way."""
    differs = cells["p_adjusted"] < pooling.LEVEL
    higher, lower = ((differs & side).sum() for side in (cells["delta"] > 0, cells["delta"] < 0))
    unclear = len(cells) - higher - lower
    return f"higher in {higher}, lower in {lower} and not distinguishable in {unclear}"


def _explained(ece: pd.DataFrame) -> list[str]:
    """Say whether changes of ECE are more than those of accuracy would bring alone."""
    differs, off = ece["p_adjusted"] < pooling.LEVEL, ece["beyond_p"] < pooling.LEVEL
    sentences = []
    for way, sign, verb in (("higher", 1, "rise"), ("lower", -1, "fall")):
        changed = differs & (sign * ece["delta"] > 0)
        more, less = ((changed & off & (side * ece["beyond"] > 0)).sum() for side in (sign, -sign))
        alone = "if accuracy alone had changed and every answer had kept its confidence"
        rest = changed.sum() - more - less
        if changed.sum() == 1:
            sentences.append(
                f"Whether the one with {way} ECE {verb}s more or less than {alone} cannot be told."
                if rest
                else f"The one with {way} ECE {verb}s {'more' if more else 'less'} than {alone}."
            )
        elif changed.any():
            sentences.append(
                f"Of the {changed.sum()} with {way} ECE, {more} {verb} more and {less} less than "
                f"{alone}; {rest} {'is' if rest == 1 else 'are'} not distinguishable from that."
            )
    return sentences


def _compared(row: pd.Series) -> str:
    """Say how a cell compares with the unpruned model."""
    if row["p_adjusted"] < pooling.LEVEL:
        return f"{'above' if row['delta'] > 0 else 'below'} the unpruned model's"
    return "not distinguishable from the unpruned model's"


def limits(study: Study, detectable: pd.DataFrame) -> list[str]:
    """List what the numbers do not say.

    Args:
        study: the settings.
        detectable: detectable.csv.
    """
    statistics, short = study.statistics, [one.is_short for one in study.datasets]
    softmax = not all(short) or any(one.confidence is None for one in study.imported)
    confidence = (  # that of short answers: see `provenance.sequence_limits`
        "Confidence is the softmax over the first-token logits of the answer options"
        f"{', where answers are options.' if any(short) else '; free-form answers are not tested.'}"
    )
    ece = detectable[(detectable["subset"] == pooling.HEADLINE_SUBSET)]
    ece = ece[(ece["metric"] == "ece_debiased") & ece["minimum_detectable"].notna()]
    smallest = ", ".join(
        f"{row.minimum_detectable:.3f} on {row.dataset}, {row.model}" for row in ece.itertuples()
    )
    power = (
        f" The smallest change of ECE that this data can detect is {smallest} (two-sided, 5 %, "
        "power 80 %, before the adjustment for many tests)."
    )
    return [
        f"Not distinguishable does not mean equal.{power if smallest else ''}",
        *([confidence] if softmax else []),
        f"Intervals ({100 * statistics.level:g} %) come from {statistics.resamples} resamples of "
        "images, all questions of an image together. They generalise to other images like these, "
        "not to other models, trainings or data sets.",
        f"ECE uses {statistics.bins} equal-width bins. Sampling noise adds to it, which is taken "
        "off here (debiased, not below 0); the plain ECE is in the tables, without an interval.",
        "Of several seeds of a strategy, the mean and the range are shown, which is no interval.",
    ]
