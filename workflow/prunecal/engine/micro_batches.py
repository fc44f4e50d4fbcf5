"""Run planned micro-batches one after another, halving those that do not fit into memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prunecal.core.cli import log
from prunecal.core.errors import PrunecalError
from prunecal.engine.planner import halves

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from prunecal.engine.greedy import GreedyReader
    from prunecal.engine.options import OptionReader
    from prunecal.engine.planner import Row

    # Of a micro-batch's questions: final states, evidence coverage, and for short answers the
    # prompt with its keys and values.
    Answer = Callable[[list[Row]], tuple[Any, ...]]
    Reader = OptionReader | GreedyReader


def read(
    planned: Sequence[list[Row]], answer: Answer, reader: Reader, texts: Sequence[Sequence[int]]
) -> tuple[list[np.ndarray], np.ndarray]:
    """Run micro-batches and read their answers.

    Args:
        planned: the micro-batches.
        answer: runs one.
        reader: reads answers from final states.
        texts: of each question, its token ids after the image.

    Returns:
        The reader's columns, and the evidence coverage of each question, in the order of `texts`.

    Raises:
        PrunecalError: not enough memory for a single question.
    """
    pending = list(planned)[::-1]
    # made once: small tensors of each micro-batch would lie between its large ones, and keep the
    # heap from shrinking once these are freed
    columns: list[Tensor] = []  # coverage last
    with torch.inference_mode():
        while pending:
            rows = pending.pop()
            try:
                states, coverages, *prompt = answer(rows)
                parts = (*reader.read(states, *prompt), coverages)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                pending += _smaller(rows, texts, error)
                continue
            if not columns:
                columns = [part.new_empty((len(texts), *part.shape[1:])) for part in parts]
            questions = [question for row in rows for question in row.questions]
            for column, part in zip(columns, parts, strict=True):
                column[torch.tensor(questions, device=column.device)] = part
    *read_columns, covered = (column.cpu().numpy() for column in columns)
    return read_columns, covered


def _smaller(
    rows: list[Row], texts: Sequence[Sequence[int]], error: RuntimeError
) -> list[list[Row]]:
    """Return the halves of a batch that did not fit into memory; reraise other errors."""
    if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
        raise error
    parts = halves(rows, texts)
    if not parts:
        raise PrunecalError(
            "out of memory with a single question; request more memory or a larger GPU"
        ) from error
    log.warning("out of memory with %d images in a micro-batch: halving it", len(rows))
    torch.cuda.empty_cache()  # nothing happens where no GPU is used
    return parts[::-1]
