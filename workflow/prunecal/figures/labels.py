"""Tables with the names and the order of figures: "FastV" for fastv-layer2, unpruned first."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from prunecal.calibration.catalogue import CATALOGUE
from prunecal.figures import naming
from prunecal.figures.pooling import HEADLINE_SUBSET
from prunecal.figures.style import styles

if TYPE_CHECKING:
    import pandas as pd


class Names(NamedTuple):
    """How the strategies of a study are called, by their label in paths.

    Attributes:
        single: the name of each alone, seeds told apart.
        joined: the name that seeds of one strategy share.
        place: in legends.
    """

    single: dict[str, str]
    joined: dict[str, str]
    place: dict[str, int]


def names_of(metrics: pd.DataFrame) -> Names:
    """Return the names of a study's strategies.

    Args:
        metrics: any table of cells with the columns strategy, family and one for each parameter.
    """
    looks, known = styles(metrics), naming.strategies(metrics)
    siblings: dict[str, list[dict]] = {}
    for family, parameters in known.values():
        siblings.setdefault(family, []).append(parameters)
    return Names(
        {
            label: naming.strategy_name(family, parameters, siblings[family])
            for label, (family, parameters) in known.items()
        },
        {label: look.name for label, look in looks.items()},
        {label: look.place for label, look in looks.items()},
    )


def in_text(text: str, names: Names) -> str:
    """Return a text with names of strategies and symbols of parameters for what files call them."""
    labels = sorted(names.single, key=len, reverse=True)
    pattern = "|".join(rf"(?<![\w.-]){re.escape(label)}(?![\w-]|\.\d)" for label in labels)
    if labels:
        text = re.sub(pattern, lambda label: names.single[label[0]], text)
    swept = rf"(?<=\bover )({'|'.join(naming.SYMBOLS)})(?= at \d)"
    return re.sub(swept, lambda key: naming.SYMBOLS[key[0]], text)


def for_readers(frame: pd.DataFrame, names: Names) -> pd.DataFrame:
    """Return a table with strategies named and in the order of legends, metrics as catalogued.

    Rows of one model, data set and subset stay together, in the order of the table. A table with
    a column "seeds" has a row for all seeds of a strategy.
    """
    import pandas as pd

    if "selection" in frame:
        return frame.assign(strategy=frame["strategy"].map(names.joined))
    keys: dict[str, pd.Series] = {
        column: frame[column].map(_places(frame[column]))
        for column in ("model", "dataset", "subset")
        if column in frame
    }
    if "strategy" in frame:
        keys["strategy"] = frame["strategy"].map(names.place)
        keys["seed"] = frame["strategy"].map({label: i for i, label in enumerate(names.place)})
        called = names.joined if "seeds" in frame else names.single
        frame = frame.assign(strategy=frame["strategy"].map(lambda label: called.get(label, label)))
    if "budget" in frame and "strategy" in frame:
        keys["budget"] = frame["budget"]
    if "metric" in frame and "with" not in frame:
        keys["metric"] = frame["metric"].map(metric_place)
    if "quantity" in frame:  # a claim's comparisons stay in their own order
        named = [in_text(text, names) for text in frame["quantity"].fillna("")]
        return frame.assign(quantity=named).replace({"quantity": {"": None}})
    if not keys:
        return frame
    order = pd.DataFrame(keys).sort_values([*keys], kind="stable").index
    return frame.loc[order].reset_index(drop=True)


def _places(column: pd.Series) -> dict[str, int]:
    """Return the place of each value: all questions before subsets, else as the table has them."""
    values = sorted(column.unique(), key=lambda value: value != HEADLINE_SUBSET)
    return {value: place for place, value in enumerate(values)}


def metric_place(metric: str) -> int:
    """Return a metric's place in the catalogue; those that it lacks come last."""
    keys = list(CATALOGUE)
    return keys.index(metric) if metric in CATALOGUE else len(keys)
