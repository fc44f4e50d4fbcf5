"""Does visual token pruning keep a multimodal LLM's confidence trustworthy?

`prunecal.load("results")` returns a finished study's results as pandas frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from prunecal.statistics.results import Results

__version__ = "0.1.0"


def load(folder: Path | str = "results") -> Results:
    """Load a finished study: `.metrics`, `.comparisons`, `.claims`, `.cells`, `.predictions(…)`.

    Args:
        folder: the study's tables: `results`, or `results/<study>` of a named study.

    Raises:
        PrunecalError: the folder holds no study; the message names the command that makes one.
    """
    from prunecal.statistics.results import Results

    return Results(folder)
