"""Compact SVG shows what matplotlib's own shows."""

import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import pyplot

from prunecal.figures.compact_svg import compact

PATH = re.compile(r"([MLVHCQz])([^MLVHCQz]*)")


@pytest.fixture
def svg():
    figure, grid = pyplot.subplots(1, 2)
    rng = np.random.default_rng(0)
    for axes in grid:
        low = rng.random(30)
        axes.vlines(np.arange(30), low, low + 1, color="#003f62", alpha=0.5)
        axes.plot(np.arange(30), low, marker="D", linestyle=(0, (4, 2)), color="#d55e00")
        axes.fill_between(np.arange(30), low, low + 0.3, alpha=0.1)
        axes.set_title("the same title")
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return text.getvalue()


def points(data):
    """List the corners of path data, with the ends of vertical and horizontal lines filled in."""
    at, corners = [0.0, 0.0], []
    for letter, text in PATH.findall(data):
        numbers = [float(one) for one in text.split()]
        if letter == "V":
            at = [at[0], numbers[0]]
        elif letter == "H":
            at = [numbers[0], at[1]]
        elif letter != "z":
            at = numbers[-2:]
        corners.append((letter in "Mz", *at))
    return corners


def drawn(svg):
    """Return each path's corners and looks, one by one, whatever groups and classes they are in."""
    root = ElementTree.fromstring(svg)  # noqa: S314  our own file
    sheet = dict(re.findall(r"\.(\w+)\{([^}]*)\}", svg))
    result = []
    for path in root.iter("{http://www.w3.org/2000/svg}path"):
        if path.get("transform"):  # of a glyph
            continue
        look = path.get("style") or sheet.get(path.get("class"), "")
        corners = points(path.get("d"))
        starts = [at for at, (begins, *_) in enumerate(corners) if begins and at]
        closed = "z" in path.get("d")
        parts = [corners] if closed or not starts else np.split(np.array(corners), starts)
        result += [(look, np.array(part, float)) for part in parts]
    return result


def test_paths_keep_their_corners_and_looks(svg):
    before, after = drawn(svg), drawn(compact(svg))
    assert len(before) == len(after) > 70
    for (look, corners), (small_look, small) in zip(before, after, strict=True):
        assert look == small_look
        assert np.abs(corners - small).max() <= 0.0051


def test_marks_and_texts_refer_to_what_is_there_in_less_than_half_of_the_bytes(svg):
    small = compact(svg)
    assert len(small) < 0.5 * len(svg)
    names = re.findall(r' id="([^"]*)"', small)
    used = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', small)
    assert {one or other for one, other in used} == set(names)
    assert len(names) == len(set(names))
    assert re.findall(r"<!--.*?-->", small) == re.findall(r"<!--.*?-->", svg)
    marks = re.compile(r'<use [^>]*y="[^>]*>')
    assert len(marks.findall(small)) == len(marks.findall(svg))
