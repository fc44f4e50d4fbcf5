"""The page of all cells: a chart of what the reader selects, and a table to search and sort.

Both read the same rows, which the page holds once, compressed. The chart is a specification for
Vega-Lite, made by altair; its scripts come from vl-convert and stand in the page, which needs no
network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunecal.calibration import catalogue
from prunecal.figures import cost, labels, naming, style
from prunecal.report import html

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pandas as pd

KEYS = ["model", "dataset", "subset", "strategy", "budget"]
FIRST_METRIC = "ece_debiased"  # in the chart when the page opens
CELLS, REFERENCE = "cells", "reference"  # names of the chart's data
HEIGHT = 340  # of the chart, pixels


def write(path: Path, metrics: pd.DataFrame, provenance: pd.DataFrame) -> None:
    """Write the page.

    Args:
        path: of the page.
        metrics: all metrics.
        provenance: provenance.csv.
    """
    values = every_cell(metrics) | explorer(metrics, provenance)
    html.write(
        path, "cells", title="All cells", bundle=html.deflated(vega_scripts().encode()), **values
    )


def every_cell(metrics: pd.DataFrame) -> dict[str, Any]:
    """Return what the table of all cells shows.

    Returns:
        heads of the columns; names, how many of them name a cell; count of the rows; and packed:
        the rows as lines of tab-separated text, deflated, in base64. A row is the cell's names,
        then per metric a number and its interval, empty where there is none.
    """
    metrics = labels.for_readers(metrics, labels.names_of(metrics))
    measured = in_order(metrics["metric"])
    heads = [*map(naming.heading, KEYS), *map(catalogue.metric_name, measured)]
    return packed(heads, len(KEYS), cell_rows(metrics, KEYS, measured))


def explorer(metrics: pd.DataFrame, provenance: pd.DataFrame) -> dict[str, Any]:
    """Return what the chart needs beside the rows of `every_cell`.

    Args:
        metrics: all metrics.
        provenance: provenance.csv.

    Returns:
        first: place of the metric that the chart shows first; cost: that of the tokens that enter
        a layer, None if no cell tells; rates: GFLOP per such token by model; strategies: name,
        colour, path of the marker, and whether it is the unpruned model, in the order of legends;
        spec: of Vega-Lite.
    """
    measured = in_order(metrics["metric"])
    names, looks = labels.names_of(metrics), style.styles(metrics)
    strategies = [
        {
            "name": one_line(names.single[label]),
            "colour": look.colour,
            "marker": marker_path(look.marker),
            "reference": look.family == style.REFERENCE,
        }
        for label, look in sorted(looks.items(), key=lambda pair: pair[1].place)
    ]
    return {
        "first": measured.index(FIRST_METRIC) if FIRST_METRIC in measured else 0,
        "cost": measured.index(cost.COST) if cost.COST in measured else None,
        "rates": cost.per_token(provenance),
        "strategies": strategies,
        "spec": chart(strategies),
    }


def chart(strategies: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the chart as Vega-Lite describes it: the page's script adds data and titles.

    A line with intervals per strategy; a band and a line across for the unpruned model.

    Args:
        strategies: see `explorer`.
    """
    import altair as alt

    domain, colours, markers = (
        [one[key] for one in strategies] for key in ("name", "colour", "marker")
    )
    x = alt.X("x:Q", scale=alt.Scale(zero=False, nice=False, padding=12))
    y, low = (alt.Y(field, scale=alt.Scale(zero=False)) for field in ("value:Q", "low:Q"))
    high = alt.Y2("high:Q")
    colour = alt.Color("strategy:N", scale=alt.Scale(domain=domain, range=colours), legend=None)
    shape = alt.Shape("strategy:N", scale=alt.Scale(domain=domain, range=markers), legend=None)
    told = [
        alt.Tooltip(field, title=title)
        for field, title in (
            ("strategy:N", "Strategy"), ("budget:N", "Tokens kept"), ("shown_x:N", "x"),
            ("shown:N", "Value"), ("interval:N", "Interval"),
        )
    ]  # fmt: skip
    cells, unpruned = (alt.Chart(alt.NamedData(name)) for name in (CELLS, REFERENCE))
    layers = [
        unpruned.mark_rect(opacity=0.1, color="black").encode(y=low, y2=high),
        unpruned.mark_rule(color="black", strokeDash=[4, 3]).encode(y=y),
        cells.mark_rule(opacity=0.5, strokeWidth=1.5).encode(x=x, y=low, y2=high, color=colour),
        cells.mark_line(strokeWidth=1.2).encode(x=x, y=y, color=colour, order="x:Q"),
        cells.mark_point(filled=True, opacity=1, size=70).encode(
            x=x, y=y, color=colour, shape=shape, tooltip=told
        ),
    ]
    drawn = alt.layer(*layers).properties(width="container", height=HEIGHT, background="white")
    return drawn.configure_view(stroke="#ddd").configure_axis(gridColor="#eee").to_dict()


def marker_path(marker: str) -> str:
    """Return a marker of the figures as an SVG path within ±1, which Vega takes for a shape."""
    from matplotlib.markers import MarkerStyle

    drawn = MarkerStyle(marker)
    (outline, *_) = drawn.get_path().transformed(drawn.get_transform()).to_polygons()
    largest = abs(outline).max()
    points = (f"{x / largest:.2f},{-y / largest:.2f}" for x, y in outline)
    return f"M{'L'.join(points)}Z"


def vega_scripts() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script, of the version that altair means."""
    import altair as alt
    import vl_convert

    version = "_".join(alt.SCHEMA_VERSION.split(".")[:2])
    return vl_convert.javascript_bundle(vl_version=version)


def in_order(metrics: Iterable[str]) -> list[str]:
    """List metrics once each, in the order of the catalogue."""
    return sorted(dict.fromkeys(metrics), key=labels.metric_place)


def one_line(text: str) -> str:
    """Return a text whose blanks are single spaces: tabs and line ends separate the page's rows."""
    return " ".join(text.split())


def packed(heads: list[str], names: int, rows: list[list[str]]) -> dict[str, Any]:
    """Return rows as the page's script unpacks them, see `every_cell`."""
    text = "\n".join("\t".join(map(one_line, row)) for row in rows)
    return {
        "heads": heads,
        "names": names,
        "count": len(rows),
        "packed": html.deflated(text.encode()),
    }


def cell_rows(metrics: pd.DataFrame, keys: list[str], measured: list[str]) -> list[list[str]]:
    """Return a row per cell and subset, in the table's order, see `every_cell`."""
    rows: dict[tuple, list[str]] = {}
    places = {metric: len(keys) + 2 * number for number, metric in enumerate(measured)}
    columns = (metrics[key] for key in (*keys, "metric", "value", "ci_low", "ci_high"))
    for *names, metric, value, low, high in zip(*columns, strict=True):
        key = tuple(names)
        if key not in rows:
            rows[key] = [*map(str, names), *[""] * (2 * len(measured))]
        at = places[metric]
        rows[key][at : at + 2] = _with_interval(value, low, high)
    return list(rows.values())


def _with_interval(value: float, low: float, high: float) -> tuple[str, str]:
    if value != value:
        return "", ""
    number = f"{value:g}" if value == int(value) else f"{value:.4f}"
    if low != low or low == high:
        return number, ""
    ends = (f"{round(end, 3) + 0.0:.3f}" for end in (low, high))  # no minus before a zero
    return number, f"[{', '.join(ends)}]"
