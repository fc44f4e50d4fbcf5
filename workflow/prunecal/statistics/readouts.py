"""Other ways to read an answer's confidence from what a cell recorded, and whether it answers.

The record is the softmax over the question's own options. It says nothing of how likely the model
would have answered with an option at all: see `row_means`. The other readings are in `readings`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prunecal.core.errors import PrunecalError

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from prunecal.statistics.predictions import Cell

LETTERS = "ABCD"
OPTIONAL = ("log_normaliser", "top_token", "spelling_logits", "letter_logits")  # columns
ROUNDING = 1e-3  # by which a log-normaliser in float32 may fall below its options' logits


class Recorded(NamedTuple):
    """What a cell recorded beside its option logits; None where it did not.

    Attributes:
        log_normaliser: log-sum-exp over the vocabulary, float64 [n].
        top_token: the vocabulary's best token, int [n].
        spellings: as the option logits, over all spellings of an option, float64 [n, K].
        letters: logits of A to D, float64 [n, 4].
        tokens: the first token of each option.
        spelling_tokens: all tokens that stand for each option.
    """

    log_normaliser: NDArray | None = None
    top_token: NDArray | None = None
    spellings: NDArray | None = None
    letters: NDArray | None = None
    tokens: Mapping[str, int] | None = None
    spelling_tokens: Mapping[str, Sequence[int]] | None = None


class Reading(NamedTuple):
    """One way to read answers: confidence float64 [n], and whether the prediction is right."""

    confidence: NDArray
    correct: NDArray


def recorded_in(
    path: Path | str, columns: pa.Table, facts: Mapping[str, Any], table: NDArray
) -> Recorded:
    """Read what a cell recorded beside its option logits.

    Args:
        path: of the cell's predictions.
        columns: their columns.
        facts: their metadata.
        table: option logits, float64 [n, K].

    Raises:
        PrunecalError: they do not fit the option logits.
    """
    given = {
        name: columns[name]
        for name in OPTIONAL
        if name in columns.column_names and columns[name].null_count < len(columns)
    }
    numbers = {
        name: padded(column) if name.endswith("logits") else column.to_numpy()
        for name, column in given.items()
    }
    spellings, letters = (numbers.get(f"{name}_logits") for name in ("spelling", "letter"))
    normaliser, top = (numbers.get(name) for name in OPTIONAL[:2])
    normaliser = None if normaliser is None else normaliser.astype(np.float64)
    faults = {
        "log_normaliser": normaliser is not None
        and not (normaliser > np.logaddexp.reduce(table, axis=1) - ROUNDING).all(),
        "spelling_logits": spellings is not None
        and not np.array_equal(np.isfinite(spellings), np.isfinite(table)),
        "letter_logits": letters is not None
        and not (letters.shape[1] == len(LETTERS) and np.isfinite(letters).all()),
    }
    for name, fault in faults.items():
        if fault:
            raise PrunecalError(
                f"{path} has a column {name!r} that does not fit its logits; delete the file and "
                "run snakemake again"
            )
    known = facts.get("option_tokens"), facts.get("option_spellings")
    return Recorded(normaliser, top, spellings, letters, *known)


def padded(lists: pa.ChunkedArray) -> NDArray:
    """Return lists of numbers as rows of a table, float64 [n, longest], -inf where they end."""
    import pyarrow.compute as pc

    length = lengths(lists)
    table = np.full((len(length), length.max()), -np.inf)
    table[np.arange(length.max()) < length[:, None]] = pc.list_flatten(lists).to_numpy()
    return table


def lengths(lists: pa.ChunkedArray) -> NDArray:
    """Return the length of each list, int [n]; a missing list has none."""
    import pyarrow.compute as pc

    return pc.fill_null(pc.list_value_length(lists), 0).to_numpy()


def readings(cell: Cell) -> dict[str, Reading]:
    """Return the other readings of a cell by name, those that it recorded.

    - vocabulary: the prediction's probability among all words, exp(logit − log-sum-exp over the
      vocabulary). The prediction is that of the record, so accuracy is too.
    - spellings: the same with the probabilities of all spellings of an option summed; the
      prediction is the option with the largest sum.
    - letters: softmax over A to D for every question, as version 1 of the paper reads it. A
      prediction that the question does not offer is wrong, and so is every question whose right
      answer is another letter.
    """
    recorded, result = cell.recorded, {}
    normaliser = recorded.log_normaliser
    if normaliser is not None:
        result["vocabulary"] = Reading(_share(cell.table.max(axis=1), normaliser), cell.correct)
        if recorded.spellings is not None:
            prediction = recorded.spellings.argmax(axis=1)
            confidence = _share(recorded.spellings.max(axis=1), normaliser)
            result["spellings"] = Reading(confidence, prediction == cell.label)
    if recorded.letters is not None:
        table = recorded.letters
        confidence = 1 / np.exp(table - table.max(axis=1, keepdims=True)).sum(axis=1)
        right = [row[label] for row, label in zip(cell.rows["options"], cell.label, strict=True)]
        answer = np.array(list(LETTERS))[table.argmax(axis=1)]
        result["letters"] = Reading(confidence, answer == np.array(right))
    return result


def row_means(cell: Cell) -> dict[str, NDArray]:
    """Return the columns of option mass and answer rate, float64 [n], with and without spellings.

    Option mass is the probability of all of the question's options among all words; an answer
    counts in the answer rate if the vocabulary's best token is the first of an option.
    """
    recorded, columns = cell.recorded, {}
    options = cell.rows["options"]
    tables = {"": cell.table, "_spellings": recorded.spellings}
    tokens: dict[str, Mapping[str, Sequence[int]]] = {
        "": {option: [token] for option, token in (recorded.tokens or {}).items()},
        "_spellings": recorded.spelling_tokens or {},
    }
    for suffix, table in tables.items():
        if table is not None and recorded.log_normaliser is not None:
            mass = np.logaddexp.reduce(table, axis=1)
            columns[f"option_mass{suffix}"] = _share(mass, recorded.log_normaliser)
        if table is not None and recorded.top_token is not None and tokens[suffix]:
            rate = _is_option(recorded.top_token, options, tokens[suffix])
            columns[f"answer_rate{suffix}"] = rate
    return columns


def _share(logit: NDArray, normaliser: NDArray) -> NDArray:
    """Return exp(logit − normaliser), at most 1: both were rounded to float32."""
    return np.exp(np.minimum(logit - normaliser, 0.0))


def _is_option(
    top: NDArray, options: Sequence[Sequence[str]], tokens: Mapping[str, Sequence[int]]
) -> NDArray:
    own = {
        row: {token for option in row for token in tokens.get(option, [])}
        for row in set(map(tuple, options))
    }
    pairs = zip(top.tolist(), options, strict=True)
    return np.array([token in own[tuple(row)] for token, row in pairs], dtype=np.float64)
