"""Matplotlib's SVG in less than half of its bytes: the same marks, written shorter.

Matplotlib repeats style and clip with every path, writes six decimals, puts every mark into groups
of its own and makes every interval a path. Here a style is a class, ids are short, numbers have two
decimals (of 1/72 inch), neighbouring lines that look alike are one path, and a text is drawn once.
"""

from __future__ import annotations

import re
from collections import Counter

BETWEEN_TAGS = re.compile(r">\s+<")
NUMBER = re.compile(r"-?\d+\.\d+")
DATA = re.compile(r' d="([^"]*)"')
STEP = re.compile(r"([MLHVCQZz])([^A-Za-z]*)")
PLACE = re.compile(r' (x|y)="([^"]*)"')
TRANSLATION = re.compile(r"translate\(([^)]*)\)")
SHIFTED = re.compile(r' transform="translate\((\S+) (\S+)\)"/>')  # of a glyph, the last attribute
STYLE = re.compile(r' style="([^"]*)"')
ID = re.compile(r' id="([^"]*)"')
MARKS = re.compile(r'<g( clip-path="[^"]*")?>((?:<use [^>]* class="([^"]*)"/>){2,})</g>')
GLYPHS = re.compile(r'(?:<use href="#[^"]*"(?: x="[^"]*")?/>){2,}')
USED_ID = re.compile(r'(?<==")#([^"]+)(?=")|(?<=url\(#)([^)]+)(?=\))')
BARE_GROUP = re.compile(r"<g>((?:(?!</?g[ >]).)*)</g>", re.DOTALL)
LINE = re.compile(r'<path d="([^"]*)"((?: clip-path="[^"]*")? class="([^"]*)")/>')
SHEET = '<style type="text/css">'


def compact(svg: str) -> str:
    """Return an SVG of matplotlib that shows the same in fewer bytes."""
    svg = _short_ids(BETWEEN_TAGS.sub("><", svg))
    svg = DATA.sub(lambda match: f' d="{_path(match[1])}"', svg)
    svg = PLACE.sub(lambda match: f' {match[1]}="{_rounded(match[2])}"', svg)
    svg = TRANSLATION.sub(lambda match: f"translate({_rounded(match[1])})", svg)
    svg = SHIFTED.sub(r' x="\1" y="\2"/>', svg).replace(' y="0"/>', "/>")
    classes: dict[str, str] = {}
    svg = STYLE.sub(
        lambda match: f' class="{classes.setdefault(match[1], f"s{len(classes)}")}"', svg
    )
    lines = {
        name for style, name in classes.items() if "fill: none" in style and "dash" not in style
    }
    rules = "".join(f".{name}{{{style}}}" for style, name in classes.items())
    svg = MARKS.sub(_alike, svg).replace("xlink:href", "href")
    groups = 1
    while groups:
        svg, groups = BARE_GROUP.subn(r"\1", svg)
    return _joined(_texts_once(svg), lines).replace(SHEET, SHEET + rules, 1)


def _short_ids(svg: str) -> str:
    """Rename the ids that something refers to, and leave out the others."""
    used = dict.fromkeys(match[1] or match[2] for match in USED_ID.finditer(svg))
    short = {name: f"i{number}" for number, name in enumerate(used)}
    svg = ID.sub(lambda match: f' id="{short[match[1]]}"' if match[1] in short else "", svg)
    return USED_ID.sub(lambda match: f"{'#' if match[1] else ''}{short[match[1] or match[2]]}", svg)


def _rounded(text: str) -> str:
    return NUMBER.sub(_short, text)


def _short(match: re.Match[str]) -> str:
    text = f"{float(match[0]):.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _path(data: str) -> str:
    """Return path data with rounded numbers, vertical and horizontal lines by their end alone."""
    parts, at = [], ["", ""]
    for letter, values in STEP.findall(_rounded(data)):
        step, numbers = letter, values.split()
        if letter == "L" and numbers[0] == at[0]:
            step, at = f"V{numbers[1]}", numbers
        elif letter == "L" and numbers[1] == at[1]:
            step, at = f"H{numbers[0]}", numbers
        else:
            step, at = letter + " ".join(numbers), numbers[-2:] or ["", ""]
        parts.append(step)
    return "".join(parts)


def _alike(match: re.Match[str]) -> str:
    """Give a group of marks their class, if they have one in common."""
    clip, marks, last = match.groups()
    written = f' class="{last}"/>'
    if marks.count(written) < marks.count("/>"):
        return match[0]
    return f'<g{clip or ""} class="{last}">{marks.replace(written, "/>")}</g>'


def _texts_once(svg: str) -> str:
    """Refer to the glyphs of a text that stands at several places, such as a tick's label."""
    repeated = (run for run, count in Counter(GLYPHS.findall(svg)).items() if count > 1)
    names = {run: f"t{number}" for number, run in enumerate(repeated)}
    written = set()

    def once(match: re.Match[str]) -> str:
        run = match[0]
        if run not in names:
            return run
        if run in written:
            return f'<use href="#{names[run]}"/>'
        written.add(run)
        return f'<g id="{names[run]}">{run}</g>'

    return GLYPHS.sub(once, svg)


def _joined(svg: str, lines: set[str]) -> str:
    """Join neighbouring paths of the same clip and class, if they are lines without a fill."""
    parts: list[str] = []
    end, last = 0, ""
    for match in LINE.finditer(svg):
        data, look, name = match.groups()
        if match.start() == end and last == look and name in lines:
            parts[-2] += data
        else:
            parts += [svg[end : match.start()], '<path d="', data, f'"{look}/>']
        last, end = look, match.end()
    return "".join([*parts, svg[end:]])
