"""The tables of the stage `prunecal.trust` as the report's pages use them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecal.figures import pooling
from prunecal.report import html
from prunecal.statistics.thresholds import RISK
from prunecal.study.report_items import TRUST_TABLES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    import pandas as pd

    from prunecal.figures.style import Style

FILES = tuple(TRUST_TABLES)


def add_argument(parser: argparse.ArgumentParser, name: str) -> None:
    """Let a page take the tables' files under a name, in the order of `FILES`."""
    files = ", ".join(f"{table}.csv" for table in FILES)
    parser.add_argument(name, type=Path, nargs=len(FILES), required=True, help=files)


@dataclass(frozen=True)
class Trust:
    """The four tables, each with the columns series (a strategy's name for readers) and place.

    Attributes:
        strategies: trust.csv.
        cells: trust_cells.csv.
        thresholds: thresholds.csv, seeds of one strategy joined by the mean.
        selected: selected.csv.
    """

    strategies: pd.DataFrame
    cells: pd.DataFrame
    thresholds: pd.DataFrame
    selected: pd.DataFrame

    def of_task(self, task: tuple[str, str]) -> Trust:
        """Return the rows of one model on one data set."""
        frames = (self.strategies, self.cells, self.thresholds, self.selected)
        return Trust(*(pooling.of_task(frame, task) for frame in frames))


def read(paths: list[Path], looks: dict[str, Style]) -> Trust:
    """Read the tables.

    Args:
        paths: the files, in the order of `FILES`.
        looks: the study's styles.
    """
    frames = []
    for path in paths:
        frame = pooling.read_csv(path)
        frame = frame.assign(
            series=[looks[strategy].name for strategy in frame["strategy"]],
            place=[looks[strategy].place for strategy in frame["strategy"]],
        )
        frames.append(frame.sort_values("place", kind="stable"))
    strategies, cells, thresholds, selected = frames
    strategies = strategies.assign(not_tested=strategies["not_tested"].fillna(""))
    return Trust(strategies, cells, _joined(thresholds), selected)


def _joined(thresholds: pd.DataFrame) -> pd.DataFrame:
    """Return means over the seeds of a strategy; of p-values the largest, as in other tables."""
    keys = ["model", "dataset", "series", "family", "place", "budget"]
    groups = thresholds.groupby(keys, sort=False)
    joined = groups.mean(numeric_only=True)
    for column in ("p", "p_adjusted"):
        joined[column] = groups[column].max()
    return joined.assign(cells=groups.size()).reset_index()


def strategy_rows(task: Trust) -> list[dict[str, Any]]:
    """Return what the page shows of each strategy: its smallest budgets, in words."""
    return [
        {
            "name": row["series"],
            "smallest": budget_words(row["smallest_budget"]),
            "next": row["at_next"] if row["next_budget"] == row["next_budget"] else "",
            "next_budget": budget_words(row["next_budget"]).replace("none", ""),
            "recalibrated": budget_words(row["smallest_budget_recalibrated"]),
        }
        for row in task.strategies.to_dict("records")
    ]


def budget_words(budget: float) -> str:
    """Return a budget, or that there is none."""
    return f"{budget:.0f}" if budget == budget else "none"


def signed(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """Return a difference with its interval."""
    if value != value:
        return ""
    text = html.signed(value)
    return text if low != low else f"{text} [{html.signed(low)}, {html.signed(high)}]"


def cell_rows(task: Trust) -> list[dict[str, Any]]:
    """Return what the page shows of each strategy and budget, as text."""
    return [
        {
            "name": row["series"],
            "budget": row["budget"],
            "accuracy": signed(*(row[f"accuracy_delta{end}"] for end in ("", "_low", "_high"))),
            "ece": signed(*(row[f"ece_delta{end}"] for end in ("", "_low", "_high"))),
            "verdict": row["verdict"],
            "recalibrated": signed(row["ece_recalibrated_delta"]),
            "verdict_recalibrated": row["verdict_recalibrated"],
        }
        for row in task.cells.to_dict("records")
    ]


def threshold_rows(task: Trust) -> list[dict[str, Any]]:
    """Return what the page shows of each cell's thresholds, the unpruned model first."""
    rows = task.thresholds.sort_values(["place", "budget"], ascending=[True, False], kind="stable")
    return [
        {
            "name": row["series"],
            "budget": row["budget"],
            "risk": "".join(_risk(row)),
            "above": bool(row["p_adjusted"] < pooling.LEVEL and row["risk"] > RISK),
            "coverage": percent(row["coverage"]),
            "guaranteed_risk": percent(row["guaranteed_risk"]),
            "guaranteed_coverage": percent(row["guaranteed_coverage"]),
            "own_coverage": percent(row["own_coverage"]),
            "own_guaranteed_coverage": percent(row["own_guaranteed_coverage"] or math.nan)
            or "none",
        }
        for row in rows.to_dict("records")
    ]


def risk_words(row: Mapping[str, Any] | pd.Series) -> str:
    """Return a row's risk in per cent with its interval; means over seeds have none."""
    number, ends = _risk(row)
    return f"{number} %{ends}" if number else ""


def _risk(row: Mapping[str, Any] | pd.Series) -> tuple[str, str]:
    """Return a row's risk and its interval in per cent, each empty where it is missing."""
    if row["risk"] != row["risk"]:
        return "", ""
    ends = ""
    if row["cells"] == 1 and row["risk_low"] == row["risk_low"]:
        ends = f" [{100 * row['risk_low']:.1f}, {100 * row['risk_high']:.1f}]"
    return percent(row["risk"]), ends


def percent(share: float) -> str:
    """Return a share in per cent with one decimal, nothing where it is missing."""
    return "" if share != share else f"{100 * share:.1f}"
