"""The comparison of two studies in words, and as a page."""

import base64
import itertools
from html import escape
from operator import itemgetter

from prunecal.calibration.catalogue import metric_name
from prunecal.statistics.tables import Rows

LEVEL = 0.05
PRUNING = "pruning"


def findings(rows: Rows) -> dict[str, list[str]]:
    """Say in sentences where two sides differ, by what was set side by side."""
    said: dict[str, list[str]] = {}
    case = itemgetter("a", "b", "effect", "metric")
    for (a, b, effect, metric), group in itertools.groupby(sorted(rows, key=case), key=case):
        found, name = list(group), metric_name(metric)
        sure = [row for row in found if row["p_holm"] < LEVEL]
        what = (
            f"The change of {name} by pruning" if effect == PRUNING else f"The {effect} of {name}"
        )
        sentence = f"{what} differs in {len(sure)} of {len(found)} cases (Holm, p < {LEVEL:g})"
        if sure:
            largest = max(sure, key=lambda row: abs(row["interaction"]))
            numbers = [largest[name] for name in ("in_a", "in_b", "interaction")]
            sentence += (
                f"; most for {largest['strategy']} at {100 * largest['share']:g} % of the tokens: "
                "{:+.4f} in A, {:+.4f} in B, difference {:+.4f} ".format(*numbers)
                + f"[{largest['ci_low']:+.4f}, {largest['ci_high']:+.4f}]"
            )
        how = "paired on the same images" if found[0]["paired"] else "on different images, unpaired"
        said.setdefault(f"A: {a}. B: {b}; {how}.", []).append(f"{sentence}.")
    return said


def page(rows: Rows, figure: bytes) -> str:
    """Return the comparison as a page of HTML: words, the figure, and what was compared."""
    words = "".join(
        f"<h2>{escape(sides)}</h2>"
        f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"
        for sides, sentences in findings(rows).items()
    )
    picture = base64.b64encode(figure).decode()
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Two studies</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><style>'
        "body { font: 15px/1.5 system-ui, sans-serif; margin: 1rem auto; padding: 0 1rem; "
        "max-width: 75rem; overflow-wrap: anywhere } .scroll { overflow-x: auto } "
        "img { min-width: 40rem; max-width: 100% }</style></head><body>\n"
        f"<h1>Two studies side by side</h1>\n{words}\n"
        '<div class="scroll" tabindex="0"><img alt="Change by pruning in A against that in B" '
        f'src="data:image/svg+xml;base64,{picture}"></div>\n'
        "<p>Every number is in interactions.csv.</p></body></html>\n"
    )
