"""The distinct questions of a data set, as a model reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prunecal.core.errors import RERUN, PrunecalError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

    from prunecal.engine.interfaces import VisionLanguageModel


class Questions:
    """The distinct pairs of image and question of a data set, each of which is computed once.

    Args:
        model: tokenizes texts.
        table: columns question_id, image_id, text and options.
        image_ids: of the images that have features.
        features: the file that holds them.

    Attributes:
        images: int [Q], the index of each distinct question's image.
        asked: the text and the options of each.
        system: token ids before the image, the same in all prompts.
        texts: of each distinct question, its token ids after the image.
        row_to_distinct: int [rows], the distinct question of each row of the data set.

    Raises:
        PrunecalError: an image has no features.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        table: pd.DataFrame,
        image_ids: Sequence[str],
        features: Path,
    ) -> None:
        index = {image: at for at, image in enumerate(image_ids)}
        missing = table.loc[~table["image_id"].isin(index.keys()), "image_id"]
        if len(missing):
            raise PrunecalError(f"{features} lacks image {missing.iloc[0]!r}; {RERUN}")
        self.ids = table["question_id"].to_numpy()
        columns = (table["image_id"], table["text"], map(tuple, table["options"]))
        triples = list(zip(*columns, strict=True))
        distinct = {triple: at for at, triple in enumerate(dict.fromkeys(triples))}
        self.row_to_distinct = np.array([distinct[triple] for triple in triples])
        self.images = np.array([index[image] for image, _, _ in distinct])
        self.asked = [(text, options) for _, text, options in distinct]
        texts = list(dict.fromkeys(text for text, _ in self.asked))
        self.system, after = model.tokenize(texts)
        by_text = dict(zip(texts, after, strict=True))
        self.texts = [by_text[text] for text, _ in self.asked]

    def __len__(self) -> int:
        return len(self.asked)

    @property
    def of_rows(self) -> np.ndarray:
        """The index of the image of each row of the data set, int [rows]."""
        return self.images[self.row_to_distinct]

    def refuse_long(self, blocks: Sequence[int], answer: int, most: int | None) -> None:
        """Refuse questions whose prompts are longer than a model can read.

        Args:
            blocks: tokens of each image, the ones between its visual tokens included.
            answer: tokens of an answer at most.
            most: the model's positions; None if it does not tell.

        Raises:
            PrunecalError: names the first row.
        """
        visual = np.array(blocks)[self.images]
        texts = np.array([len(ids) for ids in self.texts])
        lengths = len(self.system) + visual + texts + answer
        rows = np.flatnonzero(lengths[self.row_to_distinct] > (most or np.inf))
        if len(rows):
            at = self.row_to_distinct[rows[0]]
            text, more = len(self.texts[at]), f", {answer} of its answer" if answer else ""
            raise PrunecalError(
                f"question {self.ids[rows[0]]!r} makes a prompt of {lengths[at]} tokens "
                f"({len(self.system)} of the system text, {visual[at]} visual, {text} of "
                f"the question{more}) but the model has {most} positions, and {len(rows) - 1} more "
                f"of {len(self.ids)} questions are too long; shorten or leave them out"
            )

    def refuse_not_finite(self, logits: np.ndarray) -> None:
        """Refuse logits [Q, n] of the distinct questions that are NaN or infinite.

        Raises:
            PrunecalError: names the first row.
        """
        wrong = ~np.isfinite(logits).all(axis=1)
        if wrong.any():
            row = int(np.flatnonzero(np.isin(self.row_to_distinct, np.flatnonzero(wrong)))[0])
            raise PrunecalError(
                f"question {self.ids[row]!r} has NaN or infinite logits "
                f"({int(wrong.sum())} questions in all); check the weights, or use a wider dtype"
            )
