"""The report's first page: what was asked, what was found, of which model and data, and how.

python -m prunecal.summary --study study.json --metrics F --comparisons F --claims F
    --questions Q1 Q2 … --predictions P1 P2 … --figure F.svg --out summary.html
"""

from __future__ import annotations

import argparse
import base64
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecal import console, store
from prunecal.config import Study, load_study
from prunecal.digest import ROOT
from prunecal.figures import frames, names
from prunecal.figures.style import styles

if TYPE_CHECKING:
    import pandas as pd

STYLE = ROOT.parent / "reports" / "report.css"
METRICS = ["accuracy", "ece"]
LEVEL = 0.05
VERDICTS = ("supported", "contradicted", "inconclusive", "not tested")
QUESTION = (
    "When most of an image's visual tokens are dropped to save computation, does the model's "
    "confidence still tell how likely its answer is right?"
)


def main(arguments: argparse.Namespace) -> None:
    """Write the page, a fragment of HTML."""
    study = load_study(store.read_json(arguments.study))
    metrics, comparisons = frames.read(arguments.metrics), frames.read(arguments.comparisons)
    table = together(metrics, comparisons)
    sections = [
        f"<h1>{escape(study.title)}</h1>",
        f'<p class="question">{escape(QUESTION)}</p>',
        scope(study),
        "<h2>What was found</h2>",
        *(f"<p>{sentence}</p>" for sentence in findings(table)),
        figure(arguments.figure),
        *(cells_table(frames.of_task(table, task), task) for task in frames.tasks(table)),
        LEGEND,
        "<h2>The claims, tested</h2>",
        claims_table(store.read_json(arguments.claims)),
        "<h2>What it was asked on</h2>",
        datasets_table(arguments.questions),
        "<h2>Limits</h2>",
        limits(study),
        "<h2>Provenance</h2>",
        provenance(study, arguments.predictions),
    ]
    with store.atomic(arguments.out) as path:
        path.write_text(
            "\n".join(["<style>", STYLE.read_text(encoding="utf-8"), "</style>", *sections, ""]),
            encoding="utf-8",
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


def together(metrics: pd.DataFrame, comparisons: pd.DataFrame) -> pd.DataFrame:
    """Join the page's metrics with their differences from the unpruned model, seeds pooled.

    Returns:
        The columns of `frames.pool_seeds`, and delta and p_holm, missing where not compared.
    """
    looks = styles(metrics)
    keys = ["model", "dataset", "metric", "series", "budget"]
    values = frames.pool_seeds(frames.headline(metrics, METRICS), looks)
    deltas = frames.pool_seeds(frames.headline(comparisons, METRICS), looks, column="delta")
    joined = values.merge(deltas[[*keys, "delta", "p_holm"]], on=keys, how="left")
    order = frames.tasks(metrics)
    task = [order.index(pair) for pair in zip(joined["model"], joined["dataset"], strict=True)]
    return joined.assign(task=task).sort_values(["task", "place", "budget"], kind="stable")


def findings(table: pd.DataFrame) -> list[str]:
    """Say in a few sentences per data set what the table shows.

    Args:
        table: from `together`.
    """
    sentences = []
    for task in frames.tasks(table):
        here = frames.of_task(table, task)
        accuracy, ece = (here[here["metric"] == metric] for metric in ("accuracy", "ece"))
        full = frames.reference(accuracy)["value"].iloc[0], frames.reference(ece)["value"].iloc[0]
        start = (
            f"<strong>{escape(task[1])}</strong>, {escape(task[0])}: unpruned, accuracy is "
            f"{full[0]:.3f} and ECE {full[1]:.3f}."
        )
        cells = frames.pruned(ece)
        if cells.empty:
            sentences.append(f"{start} No strategy drops tokens here.")
            continue
        differs = cells["p_holm"] < LEVEL
        worse, better = (
            (differs & (cells["delta"] > 0)).sum(),
            (differs & (cells["delta"] < 0)).sum(),
        )
        smallest = frames.budgets(here)[0]
        last = frames.pruned(accuracy)
        best = last[last["budget"] == smallest].nlargest(1, "value").iloc[0]
        low = cells.nsmallest(1, "value").iloc[0]
        sentences.append(
            f"{start} Of {len(cells)} pairs of strategy and budget, ECE is higher in {worse}, "
            f"lower in {better} and not distinguishable in {len(cells) - worse - better} (Holm, "
            f"p &lt; {LEVEL:g}). The lowest ECE is {low['value']:.3f}: {escape(low['series'])} at "
            f"{low['budget']} tokens. At the smallest budget, {smallest} tokens, "
            f"{escape(best['series'])} keeps the highest accuracy, {best['value']:.3f}."
        )
    return sentences


def figure(path: Path) -> str:
    """Embed an SVG as an image, so that the page needs no other file."""
    content = base64.b64encode(path.read_bytes()).decode()
    return (
        '<div class="scroll" tabindex="0"><img alt="ECE of each strategy against the budget of '
        'visual tokens, with the unpruned model as a band" '
        f'src="data:image/svg+xml;base64,{content}"></div>'
    )


def cells_table(here: pd.DataFrame, task: tuple[str, str]) -> str:
    """Return the table of one model and data set: a row per strategy, columns per budget.

    Args:
        here: from `together`, one model and data set.
        task: the model's and data set's names.
    """
    full = frames.reference(here).set_index("metric")
    budgets = frames.budgets(here)
    heads = "".join(
        f'<th scope="colgroup" colspan="{len(METRICS)}">{budget} tokens</th>' for budget in budgets
    )
    kinds = "".join(f'<th scope="col">{names.metric_name(metric)}</th>' for metric in METRICS)
    unpruned = "".join(f"<td>{full['value'][metric]:.3f}</td>" for metric in METRICS)
    rows = [f'<tr><th scope="row">Unpruned</th>{unpruned * max(1, len(budgets))}</tr>']
    found = {
        (row["series"], row["budget"], row["metric"]): row
        for row in frames.pruned(here).to_dict("records")
    }
    for name in dict.fromkeys(frames.pruned(here)["series"]):
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
    if not row["p_holm"] < LEVEL:
        return f"<td>{row['value']:.3f}</td>"
    up = row["delta"] > 0
    kind = "better" if up == names.HIGHER_IS_BETTER[metric] else "worse"
    return (
        f'<td class="{kind}" title="{kind} than unpruned by {abs(row["delta"]):.3f}">'
        f"{row['value']:.3f} {'▲' if up else '▼'}</td>"
    )


LEGEND = (
    '<p class="legend">▲ above and ▼ below the unpruned model after Holm’s correction within the '
    'data set and metric (p &lt; 0.05): <span class="better">blue is better</span>, '
    '<span class="worse">orange is worse</span>; unmarked numbers may differ by chance. Of several '
    "seeds, the mean is shown, marked if each of them differs. Intervals and all other metrics are "
    "in the tables of category 9.</p>"
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
    cases: dict[str, list[str]] = {}
    for words in evidence["words"]:
        place, _, compared = words.partition(": ")
        cases.setdefault(place, []).extend(compared.split("; "))
    parts = []
    for place, found in cases.items():
        verdicts = [case["verdict"] for case in evidence["numbers"] if _place(case) == place]
        counts = [f"{verdicts.count(name)} {name}" for name in VERDICTS if name in verdicts]
        items = "".join(f"<li>{escape(case)}</li>" for case in found)
        parts.append(
            f"<details><summary>{escape(place)}: {', '.join(counts) or 'no cells'}</summary>"
            f"<ul>{items}</ul></details>"
        )
    return "".join(parts)


def _place(case: dict[str, Any]) -> str:
    return f"{case['dataset']}, {case['model']}"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_plain, value)) + "]"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items())
    return "" if value is None else str(value)


def datasets_table(paths: list[Path]) -> str:
    """Return a table of the data sets: their size and one of their questions, escaped."""
    rows = []
    for path in paths:
        columns = ["image_id", "subset", "text", "options", "label"]
        questions = store.read_table(path, columns).to_pandas()
        first = questions.iloc[0]
        distinct = len(questions[["image_id", "text"]].drop_duplicates())
        answers = " / ".join(
            f"<strong>{escape(option)}</strong>" if number == first["label"] else escape(option)
            for number, option in enumerate(first["options"])
        )
        subsets = ", ".join(escape(subset) for subset in dict.fromkeys(questions["subset"]))
        rows.append(
            f'<tr><th scope="row">{escape(path.parent.name)}</th><td>{len(questions)}</td>'
            f"<td>{distinct}</td><td>{questions['image_id'].nunique()}</td><td>{subsets}</td>"
            f'<td class="text">{escape(first["text"])}<br>{answers}</td></tr>'
        )
    return (
        '<div class="scroll" tabindex="0"><table><thead><tr><th>Data set</th><th>Questions</th>'
        "<th>Distinct</th><th>Images</th><th>Subsets</th>"
        "<th>The first question and its options, the right one in bold</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def limits(study: Study) -> str:
    """List what the numbers do not say."""
    statistics = study.statistics
    items = [
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


def provenance(study: Study, predictions: list[Path]) -> str:
    """Say what made the cells: weights, versions, devices, time.

    `provenance.json` is read from beside each cell's predictions and is no input of the workflow,
    since a result must not be made anew for what merely accompanied it.
    """
    notes = [
        store.read_json(path.parent / "provenance.json")
        for path in predictions
        if (path.parent / "provenance.json").is_file()
    ]
    rows = [(f"Model {model.name}", _source(model.source())) for model in study.models]
    if notes:
        versions = {
            f"{name} {number}" for note in notes for name, number in note["versions"].items()
        }
        seconds = sum(note.get("seconds", 0) for note in notes)
        memory = max(note.get("peak_memory_mb", 0) for note in notes)
        rows += [
            ("Cells", f"{len(predictions)}, inferred in {seconds:.0f} s, at most {memory} MB"),
            ("Devices", ", ".join(sorted({str(note.get("device")) for note in notes}))),
            ("Platform", ", ".join(sorted({note["platform"] for note in notes}))),
            ("Versions", ", ".join(sorted(versions))),
        ]
    body = "".join(
        f'<tr><th scope="row">{escape(key)}</th><td>{escape(text)}</td></tr>' for key, text in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table class="facts"><tbody>{body}</tbody></table></div>'
    )


def _source(source: dict[str, Any]) -> str:
    return "; ".join(f"{key}: {_plain(value)}" for key, value in source.items())


def arguments_of(command: list[str] | None = None) -> argparse.Namespace:
    """Parse the stage's command line."""
    parser = console.parser(__doc__)
    parser.add_argument("--study", type=Path, required=True, help="study.json")
    parser.add_argument("--metrics", type=Path, required=True, help="metrics.parquet")
    parser.add_argument("--comparisons", type=Path, required=True, help="comparisons.parquet")
    parser.add_argument("--claims", type=Path, required=True, help="claims.json")
    parser.add_argument("--questions", type=Path, nargs="+", required=True, help="of all data sets")
    parser.add_argument("--predictions", type=Path, nargs="+", required=True, help="of all cells")
    parser.add_argument("--figure", type=Path, required=True, help="headline figure, SVG")
    parser.add_argument("--out", type=Path, required=True, help="HTML to write")
    return parser.parse_args(command)


if __name__ == "__main__":
    console.run(main, arguments_of())
