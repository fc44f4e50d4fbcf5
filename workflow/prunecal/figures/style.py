"""One look per strategy in every figure, and how figures are saved byte for byte alike."""

from __future__ import annotations

import base64
import io
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex, to_rgb

from prunecal.core import plugins
from prunecal.figures import naming
from prunecal.figures.compact_svg import compact
from prunecal.storage import files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which the colour blind can tell apart: (usual, varied) hue by family, in
# the order of legends. A family that is not listed takes the next spare hue.
HUES = {
    "full": ("#000000", "#000000"),
    "blind": ("#4d4d4d", "#4d4d4d"),
    "random": ("#8a8a8a", "#8a8a8a"),
    "saliency": ("#d55e00", "#e69f00"),
    "scope": ("#0072b2", "#009e73"),
    "fastv": ("#cc79a7", "#cc79a7"),
    "fastv-two-pass": ("#7b3294", "#7b3294"),
    "downsample": ("#a6761d", "#a6761d"),
}
SPARE_HUES = (
    "#b8860b", "#56b4e9", "#117733", "#882255", "#44aa99", "#aa4499", "#332288", "#999933",
    "#661100", "#6699cc", "#ee7733", "#33bbee", "#bbcc33", "#0e6b5c", "#c2a5cf",
)  # fmt: skip
MARKERS = ("o", "s", "D", "^", "P", "X", "v", "p", "h", "*", "<", ">", "d", "8")
FIRST_MARKER = {"full": 13, "random": 5, "saliency": 1, "scope": 0, "fastv": 6, "fastv-two-pass": 3}
DASHES = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.2, 1.2, 1.2)))
REFERENCE, BLIND = "full", "blind"
WIDTH = 48  # characters of a line in legends
INTERVALS = "intervals over resampled images; of several seeds, their range"
LARGEST_SVG = 1_000_000  # bytes of a figure in lines: browsers take a second to draw more
LARGEST_WEBP = 16_383  # pixels along a side
COLOURS = 32  # of a figure in pixels
ACROSS = 2  # columns of panels side by side: more of them would be too small on a screen
TALL = 12  # inches of a figure that no screen shows at once: its legend is at the top
LETTERS_PER_INCH, LINE = 17, 0.15  # of a note, and its lines' height in inches
SHEET = "prunecal.figures.prunecal"  # prunecal.mplstyle beside this file


@dataclass(frozen=True)
class Style:
    """How a strategy looks, and its place in legends."""

    name: str
    family: str
    place: int
    colour: str
    marker: str
    dash: Any

    def line(self) -> dict[str, Any]:
        """Return the keywords of a line with markers."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "linestyle": self.dash,
            "markeredgecolor": "white",
        }


def styles(frame: pd.DataFrame) -> dict[str, Style]:
    """Return each strategy's style by its label in paths.

    Seeds of one strategy share a style and a name.

    Args:
        frame: any table of cells with the columns strategy, family and one for each parameter.
    """
    strategies = naming.strategies(frame)
    series: dict[tuple, list[str]] = {}
    for label, (family, parameters) in strategies.items():
        unseeded = {key: value for key, value in parameters.items() if key != naming.SEED}
        series.setdefault((family, tuple(sorted(unseeded.items()))), []).append(label)
    hues = _hues({family for family, _ in series})
    varied = {key: naming.is_variation(key[0], dict(key[1])) for key in series}
    ordered = sorted(series, key=lambda key: (list(hues).index(key[0]), varied[key], key[1]))
    result = {}
    for place, key in enumerate(ordered):
        family, labels = key[0], series[key]
        parameters = strategies[labels[0]][1]
        kin = [other for other in ordered if other[0] == family]
        ramp = [other for other in kin if varied[other] == varied[key]]
        number = kin.index(key)
        style = Style(
            name=_series_name(strategies, family, parameters, labels),
            family=family,
            place=place,
            colour=_shade(hues[family][varied[key]], ramp.index(key), len(ramp)),
            marker=MARKERS[(FIRST_MARKER.get(family, len(family)) + number) % len(MARKERS)],
            dash=DASHES[(1 if varied[key] else 0) + 2 * (number // len(MARKERS) % 2)],
        )
        result |= dict.fromkeys(labels, style)
    return result


def _series_name(
    strategies: dict[str, tuple[str, dict]], family: str, parameters: dict, labels: list[str]
) -> str:
    siblings = [other for kind, other in strategies.values() if kind == family]
    if len(labels) == 1:
        return naming.strategy_name(family, parameters, siblings)
    unseeded = [
        {key: value for key, value in other.items() if key != naming.SEED}
        for other in [parameters, *siblings]
    ]
    name = naming.strategy_name(family, unseeded[0], unseeded[1:])
    return f"{name} (mean of {len(labels)} seeds)"


def _hues(families: set[str]) -> dict[str, tuple[str, str]]:
    unknown = sorted((families | set(plugins.names("strategies"))) - set(HUES))
    spare = {family: SPARE_HUES[i % len(SPARE_HUES)] for i, family in enumerate(unknown)}
    return HUES | {family: (hue, hue) for family, hue in spare.items()}


def _shade(hue: str, number: int, count: int) -> str:
    """Return one of `count` shades of a hue, dark to light; a single one is the hue itself."""
    if count == 1:
        return hue
    step = 2 * number / (count - 1) - 1  # -1, darkest, to 1, lightest
    towards, share = (0.0, -0.45 * step) if step < 0 else (1.0, 0.55 * step)
    return to_hex([part + (towards - part) * share for part in to_rgb(hue)])


def legend_entries(looks: dict[str, Style]) -> list[Style]:
    """Return the distinct styles in the order of legends."""
    return sorted(set(looks.values()), key=lambda style: style.place)


def use() -> None:
    """Set matplotlib to draw into files, in the style of prunecal.mplstyle."""
    from matplotlib import style

    mpl.use("Agg")
    style.use(SHEET)


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as SVG and PNG that depend on nothing but its content.

    The SVG of a figure with thousands of marks would be megabytes; it then holds pixels, if these
    are smaller, unless the figure shows images.
    """
    from matplotlib import pyplot as plt

    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)  # the layout stays as found: once for both files is enough
        if widened(figure):
            engine.execute(figure)
    # with an engine, even one that does nothing, matplotlib would draw each file twice
    with mpl.rc_context({"figure.constrained_layout.use": False}):
        figure.set_layout_engine(None)
        with files.atomic(folder / f"{name}.png", files.read_so_far()) as path:
            figure.savefig(path, format="png", metadata={"Software": None})
        with files.atomic(folder / f"{name}.svg", files.read_so_far()) as path:
            figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
            svg = compact(path.read_text(encoding="utf-8"))
            photographs = any(axes.images for axes in figure.axes)  # which have many colours
            if len(svg) > LARGEST_SVG and not photographs:
                svg = min(svg, _holding(folder / f"{name}.png"), key=len)
            path.write_text(svg, encoding="utf-8")
    plt.close(figure)


def widened(figure: Figure) -> bool:
    """Make a figure as wide as its titles, its legend and its note, if its panels are narrower.

    Returns:
        Whether it was made wider.
    """
    titles = (axes.title for axes in figure.axes)
    boxes = [words.get_window_extent() for words in (*figure.texts, *figure.legends, *titles)]
    cut = max((max(-box.x0, box.x1 - figure.bbox.width) for box in boxes), default=0)
    if cut <= 0:
        return False
    figure.set_figwidth(figure.get_figwidth() + 2 * cut / figure.dpi + 0.1)
    return True


def _holding(picture: Path) -> str:
    """Return an SVG that shows the pixels of a PNG, in the few colours that a figure has."""
    from PIL import Image

    packed = io.BytesIO()
    with Image.open(picture) as image:
        width, height = image.size
        few = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        kind = "webp" if max(image.size) <= LARGEST_WEBP else "png"
        if kind == "webp":
            few.convert("RGB").save(packed, kind, lossless=True)
        else:
            few.save(packed, kind, optimize=True)
    data = base64.encodebytes(packed.getvalue()).decode()
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><image width="{width}" height="{height}" '
        f'href="data:image/{kind};base64,{data}"/></svg>\n'
    )


def columns_of_panels(
    count: int, rows: int, panel: tuple[float, float], around: tuple[float, float], **sharing: bool
) -> tuple[Figure, list[Sequence[Axes]]]:
    """Return a figure with a column of panels per data set, `ACROSS` side by side.

    Args:
        count: of columns.
        rows: panels of a column.
        panel: width and height of one, inches.
        around: width and height that legend and titles take beside them, inches.
        **sharing: `sharex` and `sharey` of all panels.

    Returns:
        The figure, and the axes of each column from top to bottom.
    """
    from matplotlib import pyplot as plt

    across = min(count, ACROSS)
    blocks = -(-count // across)
    size = panel[0] * across + around[0], panel[1] * rows * blocks + around[1]
    figure, grid = plt.subplots(rows * blocks, across, figsize=size, squeeze=False, **sharing)
    columns = [block[:, place] for block in np.split(grid, blocks) for place in range(across)]
    for column in columns[:count]:
        column[-1].tick_params(labelbottom=True)  # which `sharex` leaves to the figure's last row
    for column in columns[count:]:
        for axes in column:
            axes.set_axis_off()
    return figure, columns[:count]


def drawn(figure: Figure) -> tuple[list[Artist], list[str]]:
    """Return what a legend explains: each labelled thing once, of whichever panels have it."""
    found: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def in_lines(name: str, most: int = 4, width: int = WIDTH) -> str:
    """Break a name that would leave panels no room over lines; a very long one loses its end."""
    if len(name) <= width:
        return name
    return "\n".join(textwrap.wrap(name, width, max_lines=most, placeholder=" …"))


def legend_beside(figure: Figure, handles: Sequence[Artist], labels: Sequence[str] = ()) -> None:
    """Put a legend to the right of the panels, and make the figure as high as it needs."""
    names = [in_lines(name) for name in labels or [str(one.get_label()) for one in handles]]
    place = "upper" if figure.get_figheight() > TALL else "center"
    legend = figure.legend(handles, names, loc=f"outside right {place}")
    height = legend.get_window_extent().height / figure.dpi
    figure.set_figheight(max(figure.get_figheight(), height + 0.3))


def title_and_legend(figure: Figure, title: str, handles: Sequence[Artist], columns: int) -> None:
    """Title a figure and put its legend below the panels, or, if that is far down, above them."""
    if figure.get_figheight() <= TALL:
        figure.legend(handles=handles, loc="outside lower center", ncols=columns)
        figure.suptitle(title)
        return
    font = {key: mpl.rcParams[f"figure.title{key}"] for key in ("size", "weight")}
    legend = figure.legend(  # as one box: at the same edge they would cover each other
        handles=handles, loc="outside upper center", ncols=columns, title=title,
        title_fontproperties=font,
    )  # fmt: skip
    legend.get_title().set_multialignment("center")


def note(figure: Figure, text: str) -> None:
    """Say below the panels how to read a figure, in as many lines as its width needs."""
    lines = textwrap.wrap(text, int(LETTERS_PER_INCH * figure.get_figwidth()))
    figure.supxlabel("\n".join(lines), fontsize=8, color="0.3")
    figure.set_figheight(figure.get_figheight() + LINE * (len(lines) - 1))


def nothing(sentence: str) -> Figure:
    """Return a figure that says why there is nothing to draw."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 1.6))
    axes.set_axis_off()
    axes.text(0.5, 0.5, sentence, ha="center", va="center", color="0.35", wrap=True)
    return figure
