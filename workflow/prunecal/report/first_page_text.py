"""The words of the report's first page: what was asked and found, and what that does not say."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from prunecal.figures import pooling
from prunecal.figures.style import styles

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from prunecal.study.cells import Study

TOLD = ["accuracy", "ece", "overconfidence"]  # metrics of which the findings speak
QUESTION = (
    "When most of an image's visual tokens are dropped to save computation, does the model's "
    "confidence still tell how likely its answer is right?"
)


def scope(study: Study) -> str:
    """Say in one paragraph of which models the page speaks."""
    trained = [model.name for model in study.models if model.train]
    others = [model.name for model in study.models if not model.train]
    spoken = escape(" and ".join([*trained, *others]))
    data = escape(" and ".join(dataset.name for dataset in study.datasets))
    text = (
        f"Everything on this page speaks of <strong>{spoken}</strong> on {data}, and of it alone."
    )
    if trained:
        small = escape(" and ".join(trained))
        text += (
            f" {small} is a small model that this workflow trains from scratch within minutes: its "
            "verdicts show that the study works and how such effects look; they say nothing about "
            "large models."
        )
    return f'<p class="scope">{text}</p>'


def together(
    metrics: pd.DataFrame, comparisons: pd.DataFrame, matched: pd.DataFrame
) -> pd.DataFrame:
    """Join the page's metrics with their differences from the unpruned model, seeds pooled.

    Args:
        metrics: all metrics.
        comparisons: all differences.
        matched: matched.csv: the change of ECE beyond that of accuracy.

    Returns:
        The columns of `frames.pool_seeds`, and delta and p_holm, missing where not compared; beyond
        and beyond_p of the rows of ECE: its change beyond that of accuracy and Holm's p.
    """
    looks = styles(metrics)
    keys = ["model", "dataset", "metric", "series", "budget"]
    values = pooling.pool_seeds(pooling.headline(metrics, TOLD), looks)
    deltas = pooling.pool_seeds(pooling.headline(comparisons, TOLD), looks, column="delta")
    rests = matched.assign(subset=pooling.HEADLINE_SUBSET, metric="ece")
    rests = pooling.pool_seeds(rests, looks, column="beyond").rename(columns={"p_holm": "beyond_p"})
    joined = values.merge(deltas[[*keys, "delta", "p_holm"]], on=keys, how="left")
    joined = joined.merge(rests[[*keys, "beyond", "beyond_p"]], on=keys, how="left")
    order = pooling.tasks(metrics)
    task = [order.index(pair) for pair in zip(joined["model"], joined["dataset"], strict=True)]
    return joined.assign(task=task).sort_values(["task", "place", "budget"], kind="stable")


def findings(table: pd.DataFrame) -> list[str]:
    """Say per data set what the table shows, as a paragraph and a list of HTML.

    Args:
        table: from `together`.
    """
    found = []
    for task in pooling.tasks(table):
        here = pooling.of_task(table, task)
        every = [here[here["metric"] == metric] for metric in TOLD]
        full = [pooling.reference(cells)["value"].iloc[0] for cells in every]
        accuracy, ece, over = map(pooling.pruned, every)
        start = (
            f"<strong>{escape(task[1])}</strong>, {escape(task[0])}: unpruned, accuracy is "
            f"{full[0]:.3f} and ECE {full[1]:.3f}."
        )
        if ece.empty:
            found.append(f"<p>{start} No strategy drops tokens here.</p>")
            continue
        low = ece.nsmallest(1, "value").iloc[0]
        smallest = pooling.budgets(here)[0]
        best = accuracy[accuracy["budget"] == smallest].nlargest(1, "value").iloc[0]
        items = [
            f"ECE is {_counted(ece)}.",
            f"Accuracy is {_counted(accuracy)}.",
            f"Overconfidence, mean confidence less accuracy, is {_counted(over)}.",
            *_explained(ece),
            f"The lowest ECE of a pruned model is {low['value']:.3f}, {_beside(low)}: "
            f"{escape(low['series'])} at {low['budget']} tokens.",
            f"At the smallest budget, {smallest} tokens, {escape(best['series'])} keeps the "
            f"highest accuracy, {best['value']:.3f}, {_beside(best)}.",
        ]
        found.append(
            f"<p>{start} Against it, of {len(ece)} pairs of strategy and budget (Holm, p &lt; "
            f"{pooling.LEVEL:g}):</p><ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"
        )
    return found


def _counted(cells: pd.DataFrame) -> str:
    """Say in how many cells a metric differs from the unpruned model's, and which way."""
    differs = cells["p_holm"] < pooling.LEVEL
    higher, lower = ((differs & side).sum() for side in (cells["delta"] > 0, cells["delta"] < 0))
    unclear = len(cells) - higher - lower
    return f"higher in {higher}, lower in {lower} and not distinguishable in {unclear}"


def _explained(ece: pd.DataFrame) -> list[str]:
    """Say whether changes of ECE are more than those of accuracy would bring alone."""
    differs, off = ece["p_holm"] < pooling.LEVEL, ece["beyond_p"] < pooling.LEVEL
    said = []
    for way, sign, verb in (("higher", 1, "rise"), ("lower", -1, "fall")):
        chosen = differs & (sign * ece["delta"] > 0)
        more, less = ((chosen & off & (side * ece["beyond"] > 0)).sum() for side in (sign, -sign))
        if chosen.any():
            said.append(
                f"Of the {chosen.sum()} with {way} ECE, {more} {verb} more and {less} less than if "
                "accuracy alone had changed and every answer had kept its confidence; "
                f"{chosen.sum() - more - less} cannot be told from that."
            )
    return said


def _beside(row: pd.Series) -> str:
    """Say where a cell stands beside the unpruned model."""
    if row["p_holm"] < pooling.LEVEL:
        return f"{'above' if row['delta'] > 0 else 'below'} the unpruned model's"
    return "not distinguishable from the unpruned model's"


def limits(study: Study, detectable: pd.DataFrame) -> str:
    """List what the numbers do not say.

    Args:
        study: the settings.
        detectable: detectable.csv.
    """
    statistics = study.statistics
    ece = detectable[(detectable["subset"] == pooling.HEADLINE_SUBSET)]
    ece = ece[(ece["metric"] == "ece") & ece["minimum_detectable"].notna()]
    smallest = ", ".join(
        f"{row.minimum_detectable:.3f} on {escape(row.dataset)}, {escape(row.model)}"
        for row in ece.itertuples()
    )
    power = (
        f" The smallest change of ECE that this data can show is {smallest} (two-sided, 5 %, power "
        "80 %, before Holm’s correction)."
    )
    items = [
        f"What is not distinguishable need not be equal.{power if smallest else ''}",
        "Confidence is the softmax over the first-token logits of the answer options; free-form "
        "answers are not tested.",
        f"Intervals ({100 * statistics.level:g} %) come from {statistics.resamples} resamples of "
        "images, all questions of an image together. They speak of other images like these, not of "
        "other models, trainings or data sets.",
        f"ECE uses {statistics.bins} equal-width bins and is biased upwards in small samples, "
        "more so in resamples: its interval may lie above its value.",
        "Random is drawn as the mean over its seeds with their range, which is no interval.",
    ]
    return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>"


def source(sentence: str, *files: Path) -> str:
    """Say in which files numbers stand; each `{}` of the sentence takes one."""
    shown = (f"<code>{escape(str(path))}</code>" for path in files)
    return f'<p class="source">{escape(sentence).format(*shown)}</p>'
