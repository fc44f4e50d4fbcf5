"""Draw the README's picture from the results of the embedded study: image, tokens, confidence.

    snakemake --cores all && python docs/pictures/pipeline.py

The question is the first about a single digit that the unpruned model and pure coverage answer
rightly and random pruning answers wrongly, so it illustrates; it is not a fair sample.
"""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from PIL import Image
from safetensors import safe_open

from prunecal.figures import style

HERE = Path(__file__).parent
RESULTS = HERE.parent.parent / "results"
CELLS = Path("digits-llava", "digits-pope")
DATA = Path("datasets", "digits-pope")
ROWS = {  # title: strategy, budget
    "all 100 tokens\n(unpruned)": ("full", 100),
    "20 tokens that cover the rest\n(SCOPE, α = 0)": ("scope-alpha0", 20),
    "20 random tokens": ("random-seed0", 20),
}
GRID = 10  # tokens per side
BLUE, RED = "#0072b2", "#d55e00"  # a right and a wrong answer


def probabilities(results: Path, strategy: str, budget: int) -> pd.DataFrame:
    """Return a cell's predictions with the softmax over the options' logits as `p`."""
    frame = pd.read_parquet(results / CELLS / strategy / str(budget) / "predictions.parquet")
    logits = np.stack(frame["logits"])
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return frame.assign(p=list(odds / odds.sum(axis=1, keepdims=True)))


def pick(cells: list[pd.DataFrame], texts: pd.Series) -> int:
    """Return the row of the question to draw."""
    right = [np.stack(cell["p"]).argmax(axis=1) == cell["label"] for cell in cells]
    single = ~texts.str.split("\n").str[0].str.contains(" or | and ") & (cells[0]["label"] == 0)
    return int(np.flatnonzero(single & right[0] & right[1] & ~right[2])[0])


def kept(results: Path, strategy: str, budget: int, image: int) -> np.ndarray:
    """Return which tokens a strategy keeps of an image, bool [GRID, GRID]."""
    mask = np.zeros(GRID * GRID, dtype=bool)
    with safe_open(results / CELLS / strategy / "ranking.safetensors", "np") as file:
        mask[file.get_tensor("order")[image][:budget]] = True
    return mask.reshape(GRID, GRID)


def patches(pixels: np.ndarray, mask: np.ndarray, gap: int = 2) -> np.ndarray:
    """Return an image cut into its patches, with white gaps and the dropped patches faded."""
    side = len(pixels) // GRID
    canvas = np.full((GRID * (side + gap), GRID * (side + gap), 3), 255, np.uint8)
    for row, column in np.ndindex(GRID, GRID):
        patch = pixels[row * side : (row + 1) * side, column * side : (column + 1) * side]
        shown = patch if mask[row, column] else 255 - (255 - patch) * 0.12
        top, left = row * (side + gap), column * (side + gap)
        canvas[top : top + side, left : left + side] = shown
    return canvas


def main(results: Path = RESULTS, output: Path = HERE / "pipeline.svg") -> None:
    """Draw the picture from a study's results."""
    style.use()
    cells = [probabilities(results, *cell) for cell in ROWS.values()]
    questions = pd.read_parquet(results / DATA / "questions.parquet")
    question = questions.iloc[at := pick(cells, questions["text"])]
    images = pd.read_parquet(results / DATA / "images.parquet")
    image = images["image_id"].tolist().index(question["image_id"])
    pixels = np.asarray(Image.open(io.BytesIO(images["bytes"][image])).convert("RGB"))

    figure = plt.figure(figsize=(10, 4.6))
    grid = figure.add_gridspec(3, 3, width_ratios=[1.35, 1.0, 1.3])
    axes = figure.add_subplot(grid[:, 0])
    axes.imshow(pixels, interpolation="nearest")
    axes.set_title("image")
    axes.set_xlabel(question["text"].split("\n")[0], fontsize=11, color="black", labelpad=8)
    axes.set(xticks=[], yticks=[])
    for number, (title, (strategy, budget)) in enumerate(ROWS.items()):
        axes = figure.add_subplot(grid[number, 1])
        axes.imshow(patches(pixels, kept(results, strategy, budget, image)))
        axes.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=9, color="black")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if number == 0:
            axes.set_title("visual tokens kept")
        axes = figure.add_subplot(grid[number, 2])
        p = cells[number]["p"].iloc[at]
        answer = BLUE if p.argmax() == question["label"] else RED
        colours = [answer if option == p.argmax() else "0.8" for option in range(len(p))]
        axes.barh(list(question["options"]), p, color=colours, height=0.62)
        for height, one in enumerate(p):
            axes.text(one + 0.02, height, f"{one:.0%}", va="center", fontsize=9)
        axes.invert_yaxis()
        axes.set(xlim=(0, 1.18), xticks=[])
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        if number == 0:
            axes.set_title("confidence")
    figure.savefig(output, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
