"""How salient the tokens are that a cell keeps, from rankings and features."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunecal.core.errors import RERUN, PrunecalError
from prunecal.statistics.predictions import Cell, read_cell
from prunecal.storage.arrays import open_arrays
from prunecal.storage.per_image import PerImage
from prunecal.study.budgets import Budget, kept_tokens

SALIENCY = ("saliency_share", "mean_saliency")
PerImageArray = NDArray | list[NDArray]


def saliency_tables(
    orders: list[PerImageArray | None],
    budgets: list[Budget],
    saliency: PerImageArray,
    weights: NDArray,
) -> dict[str, NDArray]:
    """Return how salient the kept tokens are, float64 [cells, 1 + R] per metric.

    `mean_saliency` is the mean saliency of an image's kept tokens, `saliency_share` their share of
    the image's whole saliency; both are averaged over questions. NaN for a cell without a ranking,
    whose strategy chooses per question inside the decoder.

    Args:
        orders: per cell int [images, N] in order of selection, or None; a list of arrays [N] where
            images have different numbers of tokens.
        budgets: per cell, tokens kept of each image.
        saliency: float [images, N], or such a list.
        weights: float64 [images, 1 + R], the number of questions that each image adds.
    """
    rows = weights.sum(axis=0)
    found = {name: np.full((len(orders), len(rows)), np.nan) for name in SALIENCY}
    total = _sums(saliency)
    for index, (order, budget) in enumerate(zip(orders, budgets, strict=True)):
        if order is not None:
            if isinstance(order, list) or isinstance(budget, str):
                numbers = np.array([kept_tokens(budget, len(tokens)) for tokens in saliency])
                pairs = zip(saliency, order, numbers.tolist(), strict=True)
                held = _sums([values[tokens[:number]] for values, tokens, number in pairs])
            else:
                numbers = np.array(budget)
                kept = np.take_along_axis(saliency, order[:, :budget].astype(np.intp), axis=1)
                held = _sums(kept)
            found["saliency_share"][index] = (held / total) @ weights / rows
            found["mean_saliency"][index] = (held / numbers) @ weights / rows
    return found


def _sums(values: PerImageArray) -> NDArray:
    """Return the sum over each image's tokens, float64 [images]."""
    if isinstance(values, list):
        return np.array([image.sum(dtype=np.float64) for image in values])
    return values.sum(axis=1, dtype=np.float64)


class Sources:
    """The files of a study by model and data set, which their paths name.

    Args:
        rankings: …/{model}/{dataset}/{strategy}/ranking.safetensors.
        features: …/{model}/{dataset}/features.safetensors.
        unpruned: predictions.parquet of the unpruned model.
    """

    def __init__(self, rankings: list[Path], features: list[Path], unpruned: list[Path]):
        self._rankings = {path.parts[-4:-1]: path for path in rankings}
        self._features = {path.parts[-3:-1]: path for path in features}
        cells = map(read_cell, unpruned)
        self._unpruned = {(c.facts["model"], c.facts["dataset"]): c for c in cells}

    def unpruned(self, task: tuple[str, str]) -> Cell:
        """Return the predictions of the unpruned model.

        Raises:
            PrunecalError: they were not given.
        """
        if task not in self._unpruned:
            raise PrunecalError(
                f"predictions of the unpruned model {task[0]} on {task[1]} are missing; add them "
                "to --unpruned"
            )
        return self._unpruned[task]

    def saliency(self, task: tuple[str, str], images: list[str]) -> PerImageArray | None:
        """Return the images' saliency, float32 [images, N], or a list where they differ in N.

        None of imported cells alone.
        """
        if task not in self._features:
            return None
        return _read(self._features[task], "saliency", images)

    def order(
        self, task: tuple[str, str], strategy: str, images: list[str], budget: Budget
    ) -> PerImageArray | None:
        """Return the images' tokens in order of selection, int16 [images, N], if they are ranked.

        Of a strategy whose budgets are not nested int16 [images, K]; None if it merges tokens or
        ranks for each question.

        A list of arrays where the images differ in N.
        """
        path = self._rankings.get((*task, strategy))
        if path is None:
            return None
        file = open_arrays(path)
        names = [] if "question" in file.facts else file.keys()
        name = "order" if "order" in names else f"kept/{budget}"
        if name not in names:
            return None
        values = file.get_tensor(name)
        if name == "order" or values.ndim > 1:
            return _read(path, name, images)
        kept = [kept_tokens(budget, count) for count in file.get_tensor("tokens").tolist()]
        parts = np.split(values, np.cumsum(kept)[:-1])
        return [parts[row] for row in _places(file, images, path)]


def _read(path: Path, name: str, images: list[str]) -> PerImageArray:
    """Read an array's part of some images, and nothing else: features may be bfloat16."""
    file = open_arrays(path)
    rows = _places(file, images, path)
    values = file.get_tensor(name)
    if values.ndim > 1:
        return values[rows]
    parts = PerImage(file, name)
    return [parts[row] for row in rows]


def _places(file: Any, images: list[str], path: Path) -> list[int]:
    place = {image: index for index, image in enumerate(file.facts["image_id"])}
    for image in images:
        if image not in place:
            raise PrunecalError(f"{path} lacks image {image!r}; {RERUN}")
    return [place[image] for image in images]
