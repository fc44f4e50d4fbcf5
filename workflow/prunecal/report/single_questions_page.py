"""The page of single questions: one folded card for each, readable without any other file."""

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunecal.report.single_questions import Change, Task

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Single questions</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 1rem; color: #1a1a1a; background: #fff }}
input {{ font: inherit; padding: .3rem .5rem; width: min(100%, 30rem); box-sizing: border-box }}
details {{ border-top: 1px solid #ccc; padding: .4rem 0 }}
summary {{ cursor: pointer; overflow-wrap: anywhere }}
.scroll {{ overflow-x: auto }}
.question {{ white-space: pre-line; overflow-wrap: anywhere }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .15rem .6rem; border-bottom: 1px solid #ddd; text-align: left }}
th {{ font-weight: 600 }}
td.number {{ text-align: right }}
tr.largest th {{ border-left: 4px solid #e69f00 }}
.right {{ color: #005a9c }}
.wrong {{ color: #a34700 }}
.picture {{ background-size: 100% 100%; width: 84px; height: 84px }}
.whole {{ width: 168px; height: 168px; margin: .5rem 0 }}
svg {{ display: block; width: 100%; height: 100% }}
path {{ stroke: #fff; stroke-width: 1.02; opacity: .8; transform: translateY(.5px) }}
meter {{ width: 7rem }}
{pictures}
</style></head><body>
<h1>The largest changes of confidence</h1>
<p>{count} questions whose confidence, the probability of the answer given, changes most against the
unpruned model, an equal share of each data set. They were chosen for their size: read them for what
happens, not for how often. Patches that a strategy drops are faded; strategies that choose inside
the decoder have no picture. The orange bar marks the largest change.</p>
<label>Search <input type="search" id="search" placeholder="for example: wrong saliency"></label>
<p id="count" role="status"></p>
{questions}
<script>
const all = [...document.querySelectorAll("details")], search = document.getElementById("search");
function filter() {{
  const words = search.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let shown = 0;
  for (const one of all) {{
    const text = one.textContent.toLowerCase();
    one.hidden = !words.every(word => text.includes(word));
    shown += !one.hidden;
  }}
  document.getElementById("count").textContent = `${{shown}} of ${{all.length}} questions`;
}}
search.addEventListener("input", filter);
filter();
</script></body></html>
"""


def card(number: int, task: "Task", change: "Change") -> str:
    """Return one question as HTML, folded."""
    cell, question = task.cells[change.cell], task.questions[change.question]
    rows = task.rows(change)
    label = question["options"][question["label"]]
    heading = (
        f"{number}. {change.size:+.2f} by {cell['name']} at {cell['budget']} tokens: "
        f"{question['text'].splitlines()[0][:90] if question['text'] else ''}"
    )
    where = " · ".join((cell["dataset"], cell["model"], question["subset"], question["image_id"]))
    options = " / ".join(escape(option) for option in question["options"])
    body = "".join(_line(row, number) for row in rows)
    return (
        f"<details{' open' if number == 1 else ''}><summary>{escape(heading)}</summary>"
        f'<div class="picture whole p{number}" role="img" aria-label="The image"></div>'
        f'<p class="question">{escape(question["text"])}</p>'
        f"<p>Options: {options}. Right answer: <strong>{escape(label)}</strong>. "
        f"<small>{escape(where)}</small></p>"
        '<div class="scroll" tabindex="0"><table><thead><tr><th>Strategy</th><th>Answer</th>'
        f"<th colspan=2>Confidence</th><th>Change</th><th>Kept tokens</th></tr></thead>"
        f"<tbody>{body}</tbody></table></div></details>"
    )


def _line(row: Mapping[str, Any], number: int) -> str:
    kind = "right" if row["right"] else "wrong"
    shown = ""
    if row["dropped"]:
        grid, path = row["dropped"]
        tokens = f"{row['budget']} of {grid * grid} tokens kept"
        shown = (
            f'<div class="picture p{number}" role="img" aria-label="{tokens}">'
            f'<svg viewBox="0 0 {grid} {grid}"><path d="{path}"/></svg></div>'
        )
    return (
        f"<tr{' class=largest' if row['largest'] else ''}>"
        f'<th scope="row">{escape(row["name"])}</th>'
        f'<td class="{kind}">{escape(row["answer"])} ({kind})</td>'
        f'<td class="number">{row["confidence"]:.3f}</td>'
        f'<td><meter value="{row["confidence"]:.3f}" aria-hidden="true"></meter></td>'
        f'<td class="number">{row["change"]:+.3f}</td><td>{shown}</td></tr>'
    )


def page(tasks: "list[Task]", pictures: Mapping[str, Mapping[str, str]], chosen: list[list]) -> str:
    """Return the page.

    Args:
        tasks: models on data sets.
        pictures: per data set and image id, a data URI.
        chosen: per task its changes.
    """
    every = [(task, change) for task, found in zip(tasks, chosen, strict=True) for change in found]
    every.sort(key=lambda pair: -abs(pair[1].size))
    cards, shown = [], []
    for number, (task, change) in enumerate(every, 1):
        cards.append(card(number, task, change))
        image = task.questions[change.question]["image_id"]
        uri = pictures[task.cells[0]["dataset"]][image]
        shown.append(f".p{number} {{ background-image: url({uri}) }}")
    return PAGE.format(count=len(every), pictures="\n".join(shown), questions="\n".join(cards))
