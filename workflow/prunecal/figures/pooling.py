"""Tables of cells as the figures want them: one row per drawn strategy, seeds pooled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.calibration import constants
from prunecal.core.errors import PrunecalError
from prunecal.figures.style import BLIND, REFERENCE, Style, styles
from prunecal.storage import files

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

GROUP = ["model", "dataset", "subset", "metric", "budget", "series"]
TEXTS = (  # columns of CSV tables
    "model", "dataset", "subset", "strategy", "family", "metric", "with", "load", "a", "b",
    "effect", "claim", "statement", "claim_verdict", "quantity", "expect", "verdict", "subsets",
    "first_question", "options", "answer", "constant_answer", "device", "dtype", "quantization",
    "model_digest",
    "model_revision", "dataset_revision", "evidence", "predictions_sha256", "versions", "platform",
    "answers_file", "scores", "stated_confidence", "not_tested",
)  # fmt: skip
HEADLINE_SUBSET = "all"
LEVEL = constants.LEVEL


def read(path: Path) -> pd.DataFrame:
    """Read metrics.parquet or comparisons.parquet."""
    return files.read_table(path).to_pandas()


def read_csv(path: Path, **kinds: type) -> pd.DataFrame:
    """Read a table that the workflow wrote as CSV: names are texts, even such as "007" and "NA".

    Args:
        path: a CSV file.
        **kinds: types of further columns, where their values do not tell.

    Raises:
        PrunecalError: the file is missing, empty or no CSV.
    """
    import pandas as pd

    types = dict.fromkeys(TEXTS, str) | kinds
    files.note_read(path)
    try:
        return pd.read_csv(path, dtype=types, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise PrunecalError(
            f"{path} is not a CSV table ({error}); delete it and run snakemake again"
        ) from error


def headline(frame: pd.DataFrame, metrics: list[str], *, blind: bool = False) -> pd.DataFrame:
    """Return the rows over a whole data set (subset "all") for the given metrics.

    Without those of answers without an image, unless they are asked for.
    """
    rows = (frame["subset"] == HEADLINE_SUBSET) & frame["metric"].isin(metrics)
    return frame[rows if blind else rows & (frame["family"] != BLIND)]


def tasks(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """List the pairs of model and data set, in the table's order."""
    pairs = frame[["model", "dataset"]].drop_duplicates()
    return list(pairs.itertuples(index=False, name=None))


def of_task(frame: pd.DataFrame, task: tuple[str, str]) -> pd.DataFrame:
    """Return the rows of one model on one data set."""
    return frame[(frame["model"] == task[0]) & (frame["dataset"] == task[1])]


def task_title(task: tuple[str, str], tasks: list[tuple[str, str]]) -> str:
    """Name a panel: the data set, with the model where there are several."""
    several = len({model for model, _ in tasks}) > 1
    return f"{task[1]} · {task[0]}" if several else task[1]


def pool_seeds(
    frame: pd.DataFrame, looks: dict[str, Style] | None = None, column: str = "value"
) -> pd.DataFrame:
    """Join strategies that differ in their seed alone into one row: the mean, and the range.

    Args:
        frame: metrics or comparisons.
        looks: the study's styles; by default those of the strategies in `frame`.
        column: what is averaged, "value" or "delta".

    Returns:
        Columns model, dataset, subset, metric, budget, series (the strategy's name for readers),
        family, place (in legends), seeds, `column`, low and high: the strategy's interval if it has
        one seed, else the smallest and largest value; of p-values, if there, the largest; and the
        share and n_images, if there.
    """
    looks = styles(frame) if looks is None else looks
    labelled = frame.assign(
        series=[looks[strategy].name for strategy in frame["strategy"]],
        place=[looks[strategy].place for strategy in frame["strategy"]],
    )
    groups = labelled.groupby(GROUP, sort=False)
    pooled = groups.agg(
        family=("family", "first"),
        place=("place", "first"),
        seeds=("strategy", "nunique"),
        low=("ci_low", "first"),
        high=("ci_high", "first"),
    )
    pooled[column] = groups[column].mean()
    several = pooled["seeds"] > 1
    pooled.loc[several, "low"] = groups[column].min()[several]
    pooled.loc[several, "high"] = groups[column].max()[several]
    for name in {"p", "p_adjusted", "n_images", "share"} & set(frame.columns):
        pooled[name] = groups[name].max()
    pooled, order = pooled.reset_index(), tasks(frame)
    pairs = zip(pooled["model"], pooled["dataset"], strict=True)
    pooled["task"] = [order.index(pair) for pair in pairs]  # in the table's order, on all pages
    pooled = pooled.sort_values(["place", "task", "budget"], kind="stable", ignore_index=True)
    return pooled.drop(columns="task")


def reference(pooled: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the unpruned model."""
    return pooled[pooled["family"] == REFERENCE]


def pruned(pooled: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of all strategies that drop tokens."""
    return pooled[~pooled["family"].isin([REFERENCE, BLIND])]


def budgets(frame: pd.DataFrame) -> list[int]:
    """List the budgets of the strategies that drop tokens, smallest first."""
    return sorted(int(budget) for budget in pruned(frame)["budget"].unique())


def in_print(value: float, digits: int) -> str:
    """Return a number with a minus as in print, none if it rounds to 0."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def order_kept(
    correlations: pd.DataFrame, task: tuple[str, str], budget: int, names: dict[str, str]
) -> str:
    """Say how alike the strategies' order by ECE is to that by other metrics, each with a name."""
    here = of_task(correlations, task)
    here = here[(here["budget"] == str(budget)) & (here["with"] == "ece")].set_index("metric")
    rho = {metric: in_print(value, 2) for metric, value in here["rho"].items()}
    parts = [f"{rho[metric]} ({name})" for metric, name in names.items() if metric in rho]
    return "ρ = " + ", ".join(parts) if parts else "too few cells for ρ"


def smallest_and_middle(budgets: list[int]) -> list[int]:
    """Return the smallest and the middle budget, one alone if there is but one."""
    return sorted({budgets[0], budgets[len(budgets) // 2]}) if budgets else []
