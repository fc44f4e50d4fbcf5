"""Cells' predictions as figures of single cells want them: confidence, correctness, image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from prunecal.figures import naming, pooling, style
from prunecal.statistics.predictions import budget_in_tokens, read_cell
from prunecal.storage import files

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


class Answers(NamedTuple):
    """What a cell answered: all arrays are [n], one entry per question."""

    confidence: NDArray  # float64, probability given to the prediction
    correct: NDArray  # bool
    image: NDArray  # int64, number of the question's image


def read(path: Path) -> Answers:
    """Read a cell's answers from predictions.parquet."""
    cell = read_cell(path)
    image = np.unique(np.array(cell.rows["image_id"]), return_inverse=True)[1]
    return Answers(cell.confidence, cell.correct, image)


def catalogue(paths: list[Path]) -> pd.DataFrame:
    """List cells by what their predictions say of themselves, but none without an image.

    Returns:
        Columns path, model, dataset, strategy, family, budget (in tokens; a rounded mean where
        images differ) and one for each parameter.
    """
    rows: list[dict[str, Any]] = []
    for path in paths:
        cell = files.read_facts(path)["cell"]
        if cell["family"] == style.BLIND:
            continue
        rows.append({"path": path, **{k: v for k, v in cell.items() if k != "parameters"}})
        rows[-1] |= cell["parameters"]
        rows[-1]["budget"] = budget_in_tokens(path)
    return pd.DataFrame(rows)


def representatives(cells: pd.DataFrame) -> pd.DataFrame:
    """Select cells for figures that draw single cells: the ends of each strategy family's range.

    Of each family the first and last strategy are taken, without variations of parameters that are
    not part of its usual name; of random, the first seed.

    Args:
        cells: from `catalogue`.

    Returns:
        Rows of `cells` with the columns name and place (in legends) added, in the order of legends.
    """
    strategies = naming.strategies(cells.drop(columns="path"))
    looks = style.styles(cells.drop(columns="path"))
    kinds: dict[str, list[str]] = {}
    for label, (family, _) in strategies.items():
        kinds.setdefault(family, []).append(label)
    kept = {}
    for family, labels in kinds.items():
        siblings = [strategies[label][1] for label in labels]
        usual = [label for label in labels if not naming.is_variation(*strategies[label])]
        ends = sorted(usual or labels, key=lambda label: (looks[label].place, label))
        for label in [ends[0]] if looks[ends[0]] == looks[ends[-1]] else [ends[0], ends[-1]]:
            kept[label] = naming.strategy_name(family, strategies[label][1], siblings)
    result = cells[cells["strategy"].isin(kept)]
    result = result.assign(
        name=[kept[label] for label in result["strategy"]],
        place=[looks[label].place for label in result["strategy"]],
    )
    return result.sort_values(["place", "budget"], kind="stable", ignore_index=True)


def in_panels(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the representatives at the budgets of `panels`, and the unpruned model."""
    rows = representatives(cells)
    return rows[rows["budget"].isin(panels(rows)) | (rows["family"] == style.REFERENCE)]


def panels(cells: pd.DataFrame) -> list[int]:
    """Return the budgets that such figures draw: the smallest and the middle one."""
    return pooling.smallest_and_middle(pooling.budgets(cells))
