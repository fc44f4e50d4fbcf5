"""The tables of the report's first page: cells, claims, data sets, and what made the cells."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from prunecal.calibration import catalogue
from prunecal.figures import naming, pooling

if TYPE_CHECKING:
    import pandas as pd

    from prunecal.study.cells import Study

METRICS = ["accuracy", "ece"]
VERDICTS = ("supported", "contradicted", "inconclusive", "not tested")
LEGEND = (
    '<p class="legend">▲ above and ▼ below the unpruned model after Holm’s correction within the '
    'data set and metric (p &lt; 0.05): <span class="better">blue is better</span>, '
    '<span class="worse">orange is worse</span>; unmarked numbers may differ by chance. Of several '
    "seeds, the mean is shown, marked if each of them differs. Intervals and all other metrics are "
    "in the tables of category 9.</p>"
)


def cells_table(here: pd.DataFrame, task: tuple[str, str]) -> str:
    """Return the table of one model and data set: a row per strategy, columns per budget.

    Args:
        here: from `together`, one model and data set.
        task: the model's and data set's names.
    """
    full = pooling.reference(here).set_index("metric")
    budgets = pooling.budgets(here)
    heads = "".join(
        f'<th scope="colgroup" colspan="{len(METRICS)}">{budget} tokens</th>' for budget in budgets
    )
    kinds = "".join(f'<th scope="col">{catalogue.metric_name(metric)}</th>' for metric in METRICS)
    unpruned = "".join(f"<td>{full['value'][metric]:.3f}</td>" for metric in METRICS)
    rows = [f'<tr><th scope="row">Unpruned</th>{unpruned * max(1, len(budgets))}</tr>']
    found = {
        (row["series"], row["budget"], row["metric"]): row
        for row in pooling.pruned(here).to_dict("records")
    }
    for name in dict.fromkeys(pooling.pruned(here)["series"]):
        numbers = "".join(
            _cell(found.get((name, budget, metric)), metric)
            for budget in budgets
            for metric in METRICS
        )
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{numbers}</tr>')
    tokens = f"all {int(full['budget'].iloc[0])} tokens"
    caption = f"{escape(task[1])}, {escape(task[0])}; the unpruned model has {tokens}"
    return (
        f'<div class="scroll" tabindex="0"><table><caption>{caption}</caption><thead><tr><td></td>'
        f"{heads or f'<th colspan={len(METRICS)}>{tokens}</th>'}</tr>"
        f'<tr><th scope="col">Strategy</th>{kinds * max(1, len(budgets))}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(row: dict[str, Any] | None, metric: str) -> str:
    """Return one number, marked if it differs from the unpruned model's."""
    if row is None:
        return "<td></td>"
    if not row["p_holm"] < pooling.LEVEL:
        return f"<td>{row['value']:.3f}</td>"
    up = row["delta"] > 0
    kind = "better" if up == catalogue.higher_is_better(metric) else "worse"
    return (
        f'<td class="{kind}" title="{kind} than unpruned by {abs(row["delta"]):.3f}">'
        f"{row['value']:.3f} {'▲' if up else '▼'}</td>"
    )


def claims_table(claims: list[dict[str, Any]]) -> str:
    """Return the claims, their verdicts and the numbers behind them as a table."""
    if not claims:
        return "<p>The study states no claims.</p>"
    rows = "".join(
        f'<tr><th scope="row">{escape(str(claim["id"]))}</th>'
        f"<td>{escape(str(claim['statement']))}</td>"
        f'<td class="verdict {_slug(claim["verdict"])}">{escape(str(claim["verdict"]))}</td>'
        f"<td>{_evidence(claim['evidence'])}</td></tr>"
        for claim in claims
    )
    counts = ", ".join(
        f"{number} {verdict}"
        for verdict in VERDICTS
        if (number := sum(claim["verdict"] == verdict for claim in claims))
    )
    return (
        f"<p>{len(claims)} claims: {counts}.</p>"
        '<div class="scroll" tabindex="0"><table class="claims"><thead><tr><th>Claim</th>'
        "<th>Statement</th><th>Verdict</th><th>Evidence</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _slug(verdict: object) -> str:
    return str(verdict).replace(" ", "-") if verdict in VERDICTS else "other"


def _evidence(evidence: dict[str, Any]) -> str:
    """Return a claim's evidence: per data set how its comparisons went, and the comparisons."""
    cases: dict[str, list[dict[str, Any]]] = {}
    for case in evidence["numbers"]:
        cases.setdefault(f"{case['dataset']}, {case['model']}", []).append(case)
    parts = []
    for place, found in cases.items():
        verdicts = [case["verdict"] for case in found]
        counts = [f"{verdicts.count(name)} {name}" for name in VERDICTS if name in verdicts]
        items = "".join(f"<li>{escape(_words(case))}</li>" for case in found)
        parts.append(
            f"<details><summary>{escape(place)}: {', '.join(counts)}</summary>"
            f"<ul>{items}</ul></details>"
        )
    return "".join(parts) or "".join(f"<p>{escape(words)}</p>" for words in evidence["words"])


def _words(case: dict[str, Any]) -> str:
    value, low, high = (f"{case[key]:+.4f}" for key in ("value", "ci_low", "ci_high"))
    expected = f"expected {case['expect']}: {case['verdict']}"
    return f"{case['quantity']}: {value} [{low}, {high}] ({expected})"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_plain, value)) + "]"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items())
    return "" if value is None else str(value)


def datasets_table(found: pd.DataFrame) -> str:
    """Return a table of the data sets: their size and one of their questions, escaped.

    Args:
        found: datasets.csv.
    """
    rows = [
        f'<tr><th scope="row">{escape(row.dataset)}</th><td>{row.rows}</td><td>{row.distinct}</td>'
        f"<td>{row.n_images}</td><td>{escape(row.subsets)}</td>"
        f'<td class="text">{escape(row.first_question)}<br>{escape(row.options)}</td>'
        f"<td>{escape(row.answer)}</td></tr>"
        for row in found.itertuples(index=False)
    ]
    return (
        '<div class="scroll" tabindex="0"><table><thead><tr><th>Data set</th><th>Questions</th>'
        "<th>Distinct</th><th>Images</th><th>Subsets</th>"
        "<th>The first question and its options</th><th>The right one</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def provenance(study: Study, cells: pd.DataFrame) -> str:
    """Say what made the cells: weights, versions, devices, time.

    Args:
        study: names the models and where they come from.
        cells: provenance.csv, a row per cell.
    """
    seconds, memory = cells["seconds"].sum(), cells["peak_memory_mb"].max()
    rows = [(f"Model {model.name}", _source(model.source())) for model in study.models]
    if seconds:  # else no cell's past is known
        rows += [
            ("Cells", f"{len(cells)}, inferred in {seconds:.0f} s, at most {memory:.0f} MB"),
            *(
                (naming.heading(column), "; ".join(sorted(cells[column].dropna().unique())))
                for column in ("device", "platform", "versions")
            ),
        ]
    body = "".join(
        f'<tr><th scope="row">{escape(key)}</th><td>{escape(text)}</td></tr>' for key, text in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table class="facts"><tbody>{body}</tbody></table></div>'
    )


def _source(source: dict[str, Any]) -> str:
    return "; ".join(f"{key}: {_plain(value)}" for key, value in source.items())
