"""What the fuzz tests share: how many examples, how inputs are spoilt, and what may come of them.

PRUNECAL_FUZZ is the number of examples over all fuzz tests. Up to CI's number they are the same
each time; above, other ones each time.
"""

import contextlib
import copy
import json
import os
import signal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from prunecal.core.errors import PrunecalError

IN_CI = 200
EXAMPLES = int(os.environ.get("PRUNECAL_FUZZ", IN_CI))
SLOWEST = 30  # seconds that any input may take; far more than any takes
LONGEST = 2000  # characters of a readable message


def one_of(*values):
    """Return a strategy for these values that is short when printed."""
    return st.integers(0, len(values) - 1).map(values.__getitem__)


WORDS = st.text(max_size=8) | one_of(
    *("", " ", "\0", "\ud800", "é\u2028", "<image>", "../x", "all", "full", "nan", "-1", "1e999"),
    *("x" * 5000, "9" * 5000, "9" * 400 + "%", "0." + "1" * 400 + "%", "\u0666%"),
)
NUMBERS = st.integers() | st.floats() | one_of(-1, 0, 1, 2**31, 2**63, 2**64, 10**400, 1e308)
LEAVES = st.none() | st.booleans() | NUMBERS | WORDS


def nested(keys):
    """Return a strategy for values of any shape; mappings have these keys."""
    return st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=6,
    )


JSON = nested(WORDS)
YAML = nested(WORDS | st.integers() | st.none() | st.booleans())


def fuzzed(examples):
    """Run a test on its share of the examples: so many of the 200 in CI."""
    return settings(
        max_examples=max(1, examples * EXAMPLES // IN_CI),
        derandomize=EXAMPLES <= IN_CI,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


class HangError(BaseException):
    """An input took too long; no `except Exception` may hide that."""


@contextlib.contextmanager
def in_time():
    """Raise HangError where the block still runs after SLOWEST seconds."""

    def stop(*_):
        raise HangError(f"still running after {SLOWEST} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SLOWEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def result_or_sentence(call, *arguments):
    """Return what a call gives, or None where it refuses its input in readable words."""
    with in_time():
        try:
            return call(*arguments)
        except PrunecalError as error:
            said = str(error)
            assert said.strip()
            assert len(said) < LONGEST
            return None


@st.composite
def spoilt(draw, tree, junk=JSON):
    """Change one to three places of nested lists and mappings."""
    root = [copy.deepcopy(tree)]
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(root))
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        deed = draw(st.sampled_from(["replace", "remove", "move", "add"]))
        if deed == "remove" and holder is not root:
            del holder[key]
        elif deed == "move":
            other, place = places[draw(st.integers(0, len(places) - 1))]
            holder[key] = copy.deepcopy(other[place])
        elif deed == "add" and isinstance(holder[key], dict):
            holder[key][draw(WORDS)] = draw(junk)
        elif deed == "add" and isinstance(holder[key], list):
            holder[key].append(draw(junk))
        else:
            holder[key] = draw(junk)
    return root[0]


def _places(tree):
    """Yield each list or mapping within a tree with each of its places."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


@st.composite
def damaged(draw, content):
    """Cut bytes off, flip some, or put others in their place; often near an end: headers."""
    content = bytearray(content)
    last = max(len(content) - 1, 0)
    place = (
        st.integers(0, last) | st.integers(0, min(64, last)) | st.integers(max(0, last - 400), last)
    )
    deed = draw(st.sampled_from(["cut", "flip", "flip", "replace", "nothing left"]))
    if deed == "cut":
        return bytes(content[: draw(place)])
    if deed == "nothing left":
        return draw(st.binary(max_size=40))
    if deed == "replace":
        start = draw(place)
        content[start : start + draw(st.integers(0, 40))] = draw(st.binary(max_size=40))
        return bytes(content)
    for _ in range(draw(st.integers(1, 8))):
        if content:
            content[draw(place)] ^= draw(st.integers(1, 255))
    return bytes(content)


def json_text(value):
    """Return JSON of anything, with NaN and halves of characters as Python writes them."""
    return json.dumps(value, default=str)
