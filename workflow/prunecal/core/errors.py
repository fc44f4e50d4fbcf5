"""The one kind of error that a user is meant to see."""

import re
from typing import Any

LONGEST = 200  # characters of a wrong value that a message shows
CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")  # no white space
RERUN = "delete it and run snakemake again"  # the remedy for a damaged result


class PrunecalError(Exception):
    """Something outside the code is wrong: an input, a setting, the network, the machine.

    The message is one readable sentence that names the input (file, key, row) and the remedy.
    """


def brief(value: Any) -> str:
    """Return a wrong value for a message: as Python has it, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # numbers of thousands of digits, lists as deep
        text = f"{value:#x}" if isinstance(value, int) else f"a {type(value).__name__}"
    return cut(text)


def cut(text: str) -> str:
    """Return a text for a message, without the rest of a very long one."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def control_character(text: str) -> str | None:
    """Return the first control character of a text that is no white space, for a message.

    NumPy drops NUL at the end of a text, terminals obey ESC, and no page or table shows either.
    """
    match = CONTROL.search(text)
    return ascii(match[0]) if match else None


def encodable(text: str) -> bool:
    """Tell whether files can hold a text; JSON can give half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def nearest(name: str, known: list[str]) -> str:
    """Return " (did you mean X?)" for the known name closest to `name`, or an empty string."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def misspelt(name: str, given: list[str]) -> str | None:
    """Return the text among those given that a name was probably meant by."""
    import difflib

    return next(iter(difflib.get_close_matches(name, given, n=1, cutoff=0.75)), None)


def counted(number: int, one: str, several: str | None = None) -> str:
    """Return a number and what it counts, such as "1 cell" and "2 cells"."""
    return f"{number} {one if number == 1 else several or f'{one}s'}"
