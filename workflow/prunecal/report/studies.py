"""The comparison of two studies in words."""

import itertools
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

from prunecal.calibration.catalogue import metric_name
from prunecal.calibration.constants import LEVEL
from prunecal.report.html import signed
from prunecal.statistics.interactions import PRECISION, PRUNING
from prunecal.statistics.tables import Rows


def findings(rows: Rows) -> dict[str, list[str]]:
    """Say in sentences where two sides differ, by what was set side by side."""
    said: dict[str, list[str]] = {}
    case = itemgetter("a", "b", "effect", "metric")
    for (a, b, effect, metric), group in itertools.groupby(sorted(rows, key=case), key=case):
        cases, name = list(group), metric_name(metric)
        sure = [row for row in cases if row["p_adjusted"] < LEVEL]
        if effect == PRECISION:
            sentence = _precision(cases, name)
            said.setdefault(_sides(a, b, cases), []).append(sentence)
            continue
        what = (
            f"The change of {name} by pruning" if effect == PRUNING else f"The {effect} of {name}"
        )
        sentence = f"{what} differs in {len(sure)} of {len(cases)} cases (adjusted p < {LEVEL:g})"
        if sure:
            largest = max(sure, key=lambda row: abs(row["interaction"]))
            sentence += (
                f"; most for {largest['strategy']} at {100 * largest['share']:g} % of the tokens: "
                f"{signed(largest['in_a'], 4)} in A, {signed(largest['in_b'], 4)} in B, "
                f"{_difference(largest)}"
            )
        said.setdefault(_sides(a, b, cases), []).append(f"{sentence}.")
    return said


def _sides(a: str, b: str, cases: Rows) -> str:
    how = "paired on the same images" if cases[0]["paired"] else "on different images, unpaired"
    return f"A: {a}. B: {b}; {how}."


def _precision(cases: Rows, name: str) -> str:
    """Say by how much the values of one model differ between two precisions."""
    sure = [row for row in cases if row["p_adjusted"] < LEVEL]
    largest = max(cases, key=lambda row: abs(row["interaction"]))
    return (
        f"Precision alone: {name} differs in {len(sure)} of {len(cases)} cells (adjusted p < "
        f"{LEVEL:g}); by most for {largest['strategy']} at {100 * largest['share']:g} % of the "
        f"tokens: {largest['in_a']:.4f} in A, {largest['in_b']:.4f} in B, "
        f"{_difference(largest)}."
    )


def _difference(row: Mapping[str, Any]) -> str:
    size, low, high = (signed(row[key], 4) for key in ("interaction", "ci_low", "ci_high"))
    return f"difference {size} [{low}, {high}]"
