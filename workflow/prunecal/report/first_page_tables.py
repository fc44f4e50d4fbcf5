"""The tables of the report's first page: cells, claims and provenance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from prunecal.calibration import catalogue
from prunecal.figures import labels, naming, pooling
from prunecal.report.html import entry

if TYPE_CHECKING:
    import pandas as pd

    from prunecal.study.cells import Study

METRICS = ["accuracy", "ece_debiased"]
VERDICTS = ("supported", "contradicted", "inconclusive", "not tested")


class Number(NamedTuple):
    """A number of the table of cells, and how it differs from the unpruned model's."""

    text: str
    side: str = ""  # "better" or "worse"
    title: str = ""


def cells_table(here: pd.DataFrame, task: tuple[str, str], *, vary: bool = False) -> dict[str, Any]:
    """Return the table of one model and data set: a row per strategy, columns per budget.

    Args:
        here: from `join`, one model and data set.
        task: the model's and data set's names.
        vary: whether images have different numbers of visual tokens.

    Returns:
        caption, heads (a group of columns each), metrics (the columns of a group) and rows (the
        strategy's name and its numbers).
    """
    full = pooling.reference(here).set_index("metric")
    budgets = pooling.budgets(here)
    everything = f"all {int(full['budget'].iloc[0])} tokens"
    heads = [f"{budget} tokens" for budget in budgets] or [everything]
    if vary:
        shares = pooling.pruned(here).groupby("budget")["share"].first()
        heads = [f"{budget} tokens ({100 * shares[budget]:.3g} %)" for budget in budgets] or heads
    cells = {
        (row["series"], row["budget"], row["metric"]): row
        for row in pooling.pruned(here).to_dict("records")
    }
    unpruned = [Number(f"{full['value'][metric]:.3f}") for metric in METRICS]
    rows = [("Unpruned", unpruned * len(heads))]
    for name in dict.fromkeys(pooling.pruned(here)["series"]):
        keys = [(name, budget, metric) for budget in budgets for metric in METRICS]
        rows.append((name, [number(cells.get(key), key[2]) for key in keys]))
    return {
        "caption": f"{task[1]}, {task[0]}; the unpruned model has {everything}"
        + ", the mean over images, which have different numbers" * vary,
        "heads": heads,
        "metrics": [catalogue.metric_name(metric) for metric in METRICS],
        "rows": rows,
    }


def number(row: dict[str, Any] | None, metric: str) -> Number:
    """Return one number, marked if it differs from the unpruned model's."""
    if row is None:
        return Number("")
    if row.get("silent"):
        return Number(f"{row['value']:.3f} †", title="stops answering with an option")
    if not row["p_adjusted"] < pooling.LEVEL:
        return Number(f"{row['value']:.3f}")
    up = row["delta"] > 0
    side = "better" if up == catalogue.catalogued(metric).higher_is_better else "worse"
    text = f"{row['value']:.3f} {'▲' if up else '▼'}"
    return Number(text, side, f"{side} than unpruned by {abs(row['delta']):.3f}")


def counted(verdicts: list[str]) -> str:
    """Say how often each verdict was given."""
    return ", ".join(f"{verdicts.count(name)} {name}" for name in VERDICTS if name in verdicts)


def claim_rows(claims: list[dict[str, Any]], names: labels.Names) -> list[dict[str, Any]]:
    """Return the rows of the table of claims.

    Args:
        claims: claims.json.
        names: of the strategies.

    Returns:
        id, statement, verdict, source, style (a class of the style sheet), cases (per data set and
        model how its comparisons came out, and the comparisons) and words, to be shown if there is
        none.
    """
    rows = []
    for claim in claims:
        cases: dict[str, list[dict[str, Any]]] = {}
        for case in claim["evidence"]["numbers"]:
            place = f"{case['dataset']}, {case['model']}"
            texts = {key: case.get(key, "") for key in ("quantity", "doubt")}
            words = {key: labels.in_text(text, names) for key, text in texts.items()}
            cases.setdefault(place, []).append(case | words)
        verdict = claim["verdict"]
        rows.append(
            {key: claim[key] for key in ("id", "statement", "verdict")}
            | {
                "source": claim["evidence"].get("source", ""),
                "style": verdict.replace(" ", "-") if verdict in VERDICTS else "other",
                "cases": [
                    (f"{place}: {counted([case['verdict'] for case in group])}", group)
                    for place, group in cases.items()
                ],
                "words": [labels.in_text(words, names) for words in claim["evidence"]["words"]],
            }
        )
    return rows


def provenance(study: Study, cells: pd.DataFrame) -> list[tuple[str, str]]:
    """Say what made the cells: weights, versions, devices, time.

    Args:
        study: names the models and where they come from.
        cells: provenance.csv, a row per cell.

    Returns:
        Pairs of a heading and a text.
    """
    seconds, memory = cells["seconds"].sum(), cells["peak_memory_mb"].max()
    rows = [
        (
            f"Model {model.name}",
            "; ".join(f"{key}: {entry(value)}" for key, value in model.source().items()),
        )
        for model in study.models
    ]
    if seconds:  # else no cell's provenance is known
        rows += [
            ("Cells", f"{len(cells)}, inferred in {seconds:.0f} s, at most {memory:.0f} MB"),
            *(
                (naming.heading(column), "; ".join(sorted(cells[column].dropna().unique())))
                for column in ("device", "platform", "versions")
            ),
        ]
    return rows
