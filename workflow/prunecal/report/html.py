"""The report's pages: one Jinja environment in which every text is escaped.

Templates, style sheets and scripts are data of the package, in report/assets.
"""

from __future__ import annotations

import base64
import re
import zlib
from functools import cache
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from prunecal.core.errors import counted
from prunecal.figures.naming import heading
from prunecal.storage import files

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from jinja2 import Environment

SECTIONS = re.compile(r"^(Args|Returns|Raises|Attributes|Yields|Example):$", re.MULTILINE)


@cache
def environment() -> Environment:
    """Return the environment of all templates."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("prunecal.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "heading": heading,
        "counted": counted,
        "listed": listed,
        "entry": entry,
        "prose": prose,
        "body": body,
        "signed": signed,
        "unbroken": unbroken,
        "svg_uri": svg_uri,
    }
    return made


def render(template: str, **values: Any) -> str:
    """Return a page; strings among the values are text, whatever they hold."""
    return environment().get_template(f"{template}.html.j2").render(values)


def write(path: Path, template: str, **values: Any) -> None:
    """Write a page."""
    text = render(template, **values)
    with files.atomic(path, files.read_so_far()) as temporary:
        temporary.write_text(text, encoding="utf-8")


def entry(value: Any) -> str:
    """Return a value as a table shows it: floats with 4 digits, nothing where it is missing."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "[" + ", ".join(map(entry, value)) + "]"
    if isinstance(value, dict):
        return ", ".join(f"{key} {entry(part)}" for key, part in value.items())
    return "" if value is None else str(value)


def signed(value: float, digits: int = 3, *, plus: bool = True) -> str:
    """Return a difference with its sign, none if it rounds to 0, and a minus as in print."""
    text = f"{value:+.{digits}f}"
    if not float(text) or (text[0] == "+" and not plus):
        return text[1:]
    return text.replace("-", "−")


def listed(names: Iterable[str]) -> str:
    """Return names as a list in a sentence, with semicolons where a name holds a comma."""
    *some, last = names
    comma = "; " if any("," in name for name in (*some, last)) else ", "
    return (
        f"{comma.join(some)}{comma.rstrip() if len(some) > 1 else ''} and {last}" if some else last
    )


def unbroken(text: str) -> str:
    """Return a sentence in which no line breaks within "α = 0.5" or "5 %"."""
    for plain in (" = ", " %", "p < "):
        text = text.replace(plain, plain.replace(" ", "\u00a0"))
    return text


def svg_uri(content: bytes) -> str:
    """Return an SVG as a data URI, in which scripts do not run: a page needs no other file.

    It has short lines: docutils refuses those of more than 10,000 characters.
    """
    return f"data:image/svg+xml;base64,{base64.encodebytes(content).decode()}"


def deflated(content: bytes) -> str:
    """Return a content as a page's script unpacks it (unpack.js): deflated, in base64."""
    return base64.encodebytes(zlib.compress(content, 9)).decode()


def body(thing: Any, *, inline: bool = False) -> Markup:
    """Return the paragraphs of a docstring after its first, which says what code does.

    Args:
        thing: what has the docstring; nothing is returned where it has no further paragraph.
        inline: whether the result stands within a paragraph of the page.

    Raises:
        ValueError: there is no docstring.
    """
    parts = [part for part in _parts(thing)[1:] if not part.startswith("Arguments and returns")]
    if inline:
        return Markup(" ") + Markup("</p><p>").join(map(_inline, parts))
    return Markup("").join(map(_paragraph, parts))


def prose(thing: Any) -> Markup:
    """Return a text, or that of a docstring before its sections, as paragraphs and lists.

    Raises:
        ValueError: there is no docstring.
    """
    return Markup("").join(map(_paragraph, _parts(thing)))


def _parts(thing: Any) -> list[str]:
    """Return the paragraphs of a text, or of a docstring before its sections."""
    text = thing if isinstance(thing, str) else thing.__doc__
    if not text:
        raise ValueError(f"{thing!r} has no docstring, so its definition cannot be shown")
    text = SECTIONS.split(cleandoc(text), maxsplit=1)[0]
    return [part for part in text.strip().split("\n\n") if part.strip()]


def _paragraph(text: str) -> Markup:
    if all(line.startswith(("- ", "  ")) for line in text.splitlines()):
        items = re.split(r"^- ", text, flags=re.MULTILINE)[1:]
        return Markup("<ul>%s</ul>") % Markup("").join(
            Markup("<li>%s</li>") % _inline(one) for one in items
        )
    return Markup("<p>%s</p>") % _inline(text)


def _inline(text: str) -> Markup:
    """Format text between backticks as code; escape everything else."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(" ".join(text.split())))))
