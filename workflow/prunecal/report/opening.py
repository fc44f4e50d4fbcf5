"""The first lines of the report: whether the unpruned model is what it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.calibration.catalogue import metric_name
from prunecal.figures import pooling
from prunecal.figures.style import REFERENCE
from prunecal.statistics.baselines import Baselines, at_chance

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from prunecal.study.run_settings import Expected

ROUNDING = 1e-9  # of a difference that is the tolerance itself


def warnings(metrics: pd.DataFrame, datasets: pd.DataFrame) -> list[str]:
    """Say on which data sets the unpruned model is at chance, so that nothing can be told there.

    Args:
        metrics: all metrics.
        datasets: datasets.csv.
    """
    accuracy = pooling.headline(metrics, ["accuracy"])
    accuracy = accuracy[accuracy["family"] == REFERENCE]
    known = datasets.set_index("dataset")
    sentences = []
    for row in accuracy.itertuples():
        base = known.loc[row.dataset]
        baselines = Baselines(base["chance"], base["constant"], base["constant_answer"])
        fault = at_chance(row.value, (row.ci_low, row.ci_high), baselines)
        if fault:
            sentences.append(
                f"{row.dataset}, {row.model}: {fault}. Nothing below tells what pruning does to "
                "it; check its weights, template and options first."
            )
    return sentences


def expected(values: Sequence[Expected], metrics: pd.DataFrame) -> list[str]:
    """Set the unpruned models beside published values: a line each, in the study's order.

    Args:
        values: `expect` of the study.
        metrics: all metrics.
    """
    unpruned = metrics[metrics["family"] == REFERENCE]
    keys = ["model", "dataset", "subset", "metric"]
    measured = unpruned.set_index(keys)["value"]
    lines = []
    for one in values:
        key = tuple(getattr(one, name) for name in keys)
        subset = "" if one.subset == pooling.HEADLINE_SUBSET else f" ({one.subset})"
        what = f"{one.dataset}{subset}, {one.model}: unpruned {_in_a_sentence(one.metric)}"
        if key not in measured.index or measured[key] != measured[key]:
            lines.append(f"{what} is not measured, published {one.value:.3f} ({one.source}).")
            continue
        agrees = abs(measured[key] - one.value) <= one.tolerance + ROUNDING
        lines.append(
            f"{what} {measured[key]:.3f}, published {one.value:.3f}: "
            f"{'agrees' if agrees else 'differs'} (tolerance {one.tolerance:g}; {one.source})."
        )
    return lines


def _in_a_sentence(metric: str) -> str:
    """Return a metric's label with a small first letter, unless it is an abbreviation."""
    label = metric_name(metric)
    return label[0].lower() + label[1:] if label[1:2].islower() else label
