"""The same images under each strategy, the kept patches bright and the dropped ones faded."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecal.caching import lineage
from prunecal.core import cli
from prunecal.core.errors import PrunecalError
from prunecal.figures import naming, style
from prunecal.models.llava import pad_to_square
from prunecal.sources.image_files import decoded, rgb
from prunecal.storage import files
from prunecal.storage.arrays import open_arrays
from prunecal.storage.held_patches import HeldPatches

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import pandas as pd
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from PIL.Image import Image

    from prunecal.storage.schemas import Arrays
    from prunecal.study.budgets import Budget

IMAGES = 4  # pictures per figure
PIXELS = 168  # side of a picture in the figure
FADED = 0.78  # how far dropped patches go towards white


def main(arguments: argparse.Namespace) -> None:
    """Draw the first images of a data set under every strategy."""
    import pandas as pd

    style.use()
    budget = int(arguments.budget) if arguments.budget.isdigit() else arguments.budget
    whole = open_arrays(arguments.rankings[0])  # every ranking is of the same images
    tokens = dict(zip(whole.facts["image_id"], lineage.token_counts(whole), strict=True))
    grids = {
        image: grid_of(whole, whole.facts["image_id"].index(image), tokens[image])
        for image in [*tokens][:IMAGES]
    }
    rows: list[dict[str, Any]] = []
    kept: list[dict[str, NDArray]] = []
    for path in arguments.rankings:
        facts = open_arrays(path).facts
        rows.append({"strategy": path.parent.name, "family": facts["family"]} | facts["parameters"])
        kept.append({})
        if budget and facts["family"] != style.REFERENCE:
            ranking = lineage.ranking(path, budget)
            for image in grids:  # repeated where each question has its own: the first counts
                kept[-1][image] = ranking.held(facts["image_id"].index(image), tokens[image])
    for path in arguments.inside:
        cell = files.read_facts(path)["cell"]
        rows.append({key: cell[key] for key in ("strategy", "family")} | cell["parameters"])
        kept.append(of_first_questions(path, grids, tokens))
    table = pd.DataFrame(rows)
    mean = files.read_object(arguments.manifest)["image_mean"]
    pictures = first_pictures(arguments.images, arguments.image_mode, mean)
    title = f"{arguments.dataset}, {arguments.model}"
    if None in grids.values():
        figure = style.nothing("The tokens of this model are of several tiles, not of one grid.")
    else:
        figure = draw(columns(table), kept, pictures, budget, title, grids)
        if arguments.inside:
            style.note(
                figure,
                "Strategies that depend on the question: for the first question about each image",
            )
    name = f"kept_tokens_{arguments.model}_{arguments.dataset}"
    style.save(figure, arguments.folder, name)


def of_first_questions(
    path: Path, images: Collection[str], tokens: Mapping[str, int]
) -> dict[str, NDArray]:
    """Return how images' patches are kept for the first question about each, float [N].

    Args:
        path: predictions of a strategy inside the decoder.
        images: those that are drawn.
        tokens: patches of every image.
    """
    held, first = HeldPatches(path), {}
    for question, image in enumerate(held.images):
        if image in images and image not in first:
            first[image] = held.of(question, tokens[image])
    return first


def columns(strategies: pd.DataFrame) -> list[tuple[int, str]]:
    """Select what is drawn: each strategy's row in the table and its name, one seed of each."""
    looks = style.styles(strategies)
    parameters_of = naming.strategies(strategies)
    rows: dict[str, tuple[int, str]] = {}
    for number, label in enumerate(strategies["strategy"]):
        family, parameters = parameters_of[label]
        siblings = [other for kind, other in parameters_of.values() if kind == family]
        name = naming.strategy_name(family, parameters, siblings)
        if family != style.REFERENCE:
            rows.setdefault(looks[label].name, (number, name))
    return [rows[look.name] for look in style.legend_entries(looks) if look.name in rows]


def first_pictures(
    path: Path, mode: str, mean: list[float], count: int = IMAGES
) -> dict[str, NDArray]:
    """Read a data set's first images as the model sees them: square, uint8 [P, P, 3], by image id.

    Args:
        path: images.parquet.
        mode: "pad" to the square, "crop" its centre, or "stretch" it to a square.
        mean: the colour of the padding, the `image_mean` of the model's manifest.
        count: how many.
    """
    import pyarrow.parquet as pq

    files.read_table(path, ["image_id"])  # says readably what is wrong with the file, if anything
    files.note_read(path)
    batch = next(pq.ParquetFile(path).iter_batches(count, columns=["image_id", "bytes"]))
    return {
        image_id: square(decoded(path, image_id, content), mode, mean)
        for image_id, content in zip(*(column.to_pylist() for column in batch), strict=True)
    }


def square(image: Image, mode: str, mean: list[float]) -> NDArray:
    """Make an image square as the model does, uint8 [PIXELS, PIXELS, 3]."""
    from PIL import ImageOps
    from PIL.Image import Resampling

    image = rgb(image)
    if mode == "pad":
        image = pad_to_square(image, tuple(int(channel * 255) for channel in mean))
    if mode == "stretch":
        return np.asarray(image.resize((PIXELS, PIXELS), Resampling.BICUBIC))
    return np.asarray(ImageOps.fit(image, (PIXELS, PIXELS), Resampling.BICUBIC))


def grid_of(file: Arrays, image: int, tokens: int) -> tuple[int, int] | None:
    """Return the rows and columns of an image's patches; None if they are of several tiles.

    Args:
        file: a ranking.
        image: number of the image in it.
        tokens: of the image.
    """
    if "layout" not in file.keys():  # noqa: SIM118  not a mapping
        return grid_side(tokens), grid_side(tokens)
    layout = tuple(map(int, file.get_slice("layout")[image]))
    return (layout[0], layout[1]) if len(layout) == 2 else None


def grid_side(tokens: int) -> int:
    """Return the patches along a side of an image.

    Raises:
        PrunecalError: the patches do not form a square.
    """
    side = round(tokens**0.5)
    if side * side != tokens:
        raise PrunecalError(
            f"{tokens} visual tokens do not form a square grid: kept tokens cannot be drawn"
        )
    return side


def fade(picture: NDArray, held: NDArray, grid: tuple[int, int] | None = None) -> NDArray:
    """Fade the patches that were dropped, and half as much those that are held within others.

    Args:
        picture: uint8 [P, P, 3].
        held: float [N], how much of each patch is kept, as `Ranking.held` returns it.
        grid: their rows and columns, a square if not given.

    Returns:
        uint8 [P, P, 3].
    """
    rows, columns = grid or (grid_side(len(held)), grid_side(len(held)))
    place = np.arange(len(picture))
    bright = held.reshape(rows, columns)[place * rows // len(picture)]
    bright = bright[:, place * columns // len(picture), None]
    faded = picture + (255 - picture.astype(float)) * FADED * (1 - bright)
    return faded.round().astype(np.uint8)


def draw(
    strategies: list[tuple[int, str]],
    kept: list[dict[str, NDArray]],
    pictures: dict[str, NDArray],
    budget: Budget,
    title: str,
    grids: dict[str, tuple[int, int] | None] | None = None,
) -> Figure:
    """Draw a row per strategy and a column per image, the whole images on top.

    Args:
        strategies: from `columns`.
        kept: by ranking, how each image's patches are held, float [N], as in `fade`.
        pictures: from `first_pictures`.
        budget: tokens kept, or the share of them.
        title: what the figure shows.
        grids: rows and columns of each image's patches, squares if not given.
    """
    from matplotlib import pyplot as plt

    if not strategies:
        return style.nothing("The study has no strategy that drops an image's tokens.")
    lines: list[tuple[str, Any]] = [("Whole image", None)]
    lines += [(name, kept[number]) for number, name in strategies]
    across = -(-len(lines) // 2)  # two blocks side by side, or the figure is a tower
    figure, grid = plt.subplots(
        across,
        2 * len(pictures) + 1,
        figsize=(1.22 * (2 * len(pictures)) + 2.4, 1.24 * across + 0.6),
        squeeze=False,
        gridspec_kw={"width_ratios": [1] * len(pictures) + [0.75] + [1] * len(pictures)},
    )
    for axes in grid.flat:
        axes.set_axis_off()
    for number, (name, held) in enumerate(lines):
        block, row = divmod(number, across)
        start = block * (len(pictures) + 1)
        for axes, (image_id, picture) in zip(grid[row][start:], pictures.items(), strict=False):
            shown = picture
            if held is not None and image_id not in held:
                continue  # no question is about it
            sides = (grids or {}).get(image_id)
            if held is not None:
                shown = fade(picture, held[image_id], sides)
            shape = sides[0] / sides[1] if sides else 1  # of the image, which is stretched
            axes.imshow(shown, interpolation="nearest", aspect=shape)
        name = style.in_lines(name).replace(", ", ",\n").replace("SCOPE ", "SCOPE\n")
        grid[row][start].text(
            -0.06, 0.5, name, ha="right",
            va="center", transform=grid[row][start].transAxes, fontsize=9,
        )  # fmt: skip
    tokens = budget if isinstance(budget, str) else f"{budget} tokens"
    figure.suptitle(
        f"Patches that each strategy keeps at a budget of {tokens} (faded: dropped, half: merged): "
        f"{title}"
    )
    return figure


if __name__ == "__main__":
    parser = cli.parser(__doc__, "--folder")
    parser.add_argument("--rankings", type=Path, nargs="+", required=True, help="of all strategies")
    parser.add_argument("--inside", type=Path, nargs="*", default=[], help="predictions of others")
    parser.add_argument("--budget", required=True, help="the one that is drawn")
    parser.add_argument("--images", type=Path, required=True, help="images.parquet")
    parser.add_argument("--image-mode", choices=["pad", "crop", "stretch"], required=True)
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.json of the model")
    parser.add_argument("--model", required=True, help="the model's name")
    parser.add_argument("--dataset", required=True, help="the data set's name")
    cli.run(main, parser.parse_args())
