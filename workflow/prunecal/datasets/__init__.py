"""Data sets: how questions and images are read, one file each (see prunecal.core.plugins).

A loader is a module that follows `DatasetLoader`.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import TYPE_CHECKING, Any, Protocol

from prunecal.core import cli
from prunecal.core.errors import PrunecalError, brief, control_character, encodable
from prunecal.core.parameters import Parameters
from prunecal.study.prompts import IMAGE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    import pandas as pd

COLUMNS = ("question_id", "image_id", "subset", "text", "options", "label")
LONGEST_ID = 1000  # characters; ids are compared as arrays that are as wide as the longest
MOST_OPTIONS = 128  # a label is stored as int8
MANY_SUBSETS = 200  # a subset takes some 0.05 s and 0.25 MB of every cell's scores
RESERVED_SUBSETS = ("all", "unique")  # see statistics/subsets.py, as the next
RESERVED_BEGINNING = "chosen by outcome"
INVISIBLE: dict[int, str | None] = dict.fromkeys(map(ord, "\u00ad\u200b\u2060\ufeff"))  # no width
INVISIBLE |= dict.fromkeys(map(ord, "\u00a0\u202f"), " ")  # spaces at which no line breaks
OWN_LETTER = re.compile(r"\(?([A-Z])[).:]")  # that a choice's text begins with
TEXT_COLUMNS = ("question_id", "image_id", "subset", "text")


@dataclass(frozen=True)
class Dataset:
    """Questions about images, and the images themselves.

    Attributes:
        questions: one row per question, columns question_id (unique), image_id, subset, text (what
            the user says), options (list of answers) and label (index of the right one). Of short
            answers also answers (list of those that are accepted); options are then the first of
            them and `short_answers.OTHER`.
        images: pairs of image_id and the bytes of a PNG or JPEG file, each image once, in the
            order in which the questions first use them; read once, from first to last.
        revision: what pins the content: a Hub revision, a digest of local files, or a generator's
            version and seed.
        places: where an image comes from, by its id, for the message about one that cannot be
            decoded; an id that tells it needs no entry.
        max_new_tokens: tokens of a short answer at most; None where answers are options.
    """

    questions: pd.DataFrame
    images: Iterable[tuple[str, bytes]]
    revision: str
    edition: str = ""
    places: Mapping[str, str] = field(default_factory=dict)
    max_new_tokens: int | None = None


class DatasetLoader(Protocol):
    """What the module of a data set loader offers."""

    LABEL: str  # the data set's name in figures and tables
    Params: type[Parameters]  # its settings

    def load(self, params: Any) -> Dataset:
        """Read the data set."""


def protocol(_: ModuleType) -> type:
    """Return the protocol that every data set loader has to follow."""
    return DatasetLoader


def check(name: str, questions: pd.DataFrame) -> None:
    """Refuse questions that no later stage could use; warn of more subsets than are quick to score.

    Args:
        name: the data set's name, for the message.
        questions: a data set's questions, as in `Dataset`.

    Raises:
        PrunecalError: a column is missing, there is no row, a text is empty or not text or holds a
            control character or an image placeholder, a subset has a reserved name, two subsets,
            image ids or question ids look alike, there are fewer than two options, more than
            MOST_OPTIONS or two that look equal, a label is not the index of one of its options, or
            two rows share a question_id.
    """
    if questions.empty:
        raise PrunecalError(f"{name}: there are no questions; check its source and its filters")
    missing = [column for column in COLUMNS if column not in questions.columns]
    if missing:
        raise PrunecalError(
            f"{name}: the questions lack the column {missing[0]!r}; have its loader give all of "
            f"{', '.join(COLUMNS)}"
        )
    for row, question in enumerate(questions[list(COLUMNS)].itertuples(index=False)):
        fault = question_fault(question)
        if fault:
            raise PrunecalError(
                f"{name}: row {row} (question {brief(question.question_id)}) {fault}"
            )
    subsets = questions["subset"].unique()
    for column, ids in {"subset": "subsets", "image_id": "image ids", "question_id": "ids"}.items():
        _refuse_what_looks_alike(name, ids, questions[column].unique())
    if len(subsets) > MANY_SUBSETS:
        text = "%s: %d subsets, each of which is scored for every cell"
        cli.log.warning(text, name, len(subsets))
    repeated = questions["question_id"].duplicated()
    if repeated.any():
        row = int(repeated.to_numpy().argmax())
        repeated_id = questions["question_id"].iloc[row]
        first = int((questions["question_id"] == repeated_id).to_numpy().argmax())
        raise PrunecalError(
            f"{name}: row {row} repeats question id {brief(repeated_id)} of row {first}; "
            f"give every question its own id"
        )


def _refuse_what_looks_alike(name: str, what: str, texts: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for text in texts:
        other = seen.setdefault(as_seen(text), text)
        if other != text:
            raise PrunecalError(
                f"{name}: the {what} {ascii(other)} and {ascii(text)} look the same in every "
                "table; write them in one way, or rename one"
            )


def as_seen(text: str) -> str:
    """Return what two texts share that no reader can tell apart."""
    return unicodedata.normalize("NFC", text.translate(INVISIBLE)).strip()


def question_fault(question: Any) -> str | None:
    """Return what is wrong with one question and what to do about it, if anything.

    Args:
        question: an object with the columns of `Dataset.questions` as attributes.
    """
    for column in TEXT_COLUMNS:
        value = getattr(question, column)
        if not isinstance(value, str) or not as_seen(value):
            return f"has {brief(value)} as its {column}; give it some text"
        if column != "text" and len(value) > LONGEST_ID:
            return f"has {len(value)} characters as its {column}; give at most {LONGEST_ID}"
        if not encodable(value):
            return (
                f"has an unpaired surrogate in its {column} ({brief(value)}), which is no "
                "character; save the data as UTF-8"
            )
        if code := control_character(value):
            return f"has the control character {code} in its {column}; remove it"
    subset = as_seen(question.subset).lower()
    if subset in RESERVED_SUBSETS or subset.startswith(RESERVED_BEGINNING):
        return (
            f"is in the subset {question.subset!r}, a name that tables give to rows of the whole "
            "data set; rename the subset"
        )
    if IMAGE in question.text:
        return f"holds {IMAGE} in its text; take it out, the prompt template places the image"
    if isinstance(question.options, str | bytes | Mapping) or not isinstance(
        question.options, Iterable
    ):
        return f"has {brief(question.options)} as its options; give a list of texts"
    options = list(question.options)
    if not all(isinstance(one, str) and as_seen(one) and encodable(one) for one in options):
        return f"has the options {brief(options)}; give each some text"
    if code := control_character("".join(options)):
        return f"has the control character {code} in its options; remove it"
    if len(options) < 2 or len(set(map(as_seen, options))) < len(options):
        return f"has the options {brief(options)}; give at least two different ones"
    if len(options) > MOST_OPTIONS:
        return f"has {len(options)} options; give at most {MOST_OPTIONS}"
    is_index = isinstance(question.label, Integral) and not isinstance(question.label, bool)
    if not is_index or question.label not in range(len(options)):
        return (
            f"has the label {brief(question.label)}, outside its options {brief(options)}; "
            f"give an index from 0 to {len(options) - 1}"
        )
    return None


def check_choices(where: str, choices: Sequence[str]) -> None:
    """Refuse choices behind lettered options that leave no single right letter.

    Args:
        where: names the question, for the message.
        choices: what the letters stand for.

    Raises:
        PrunecalError: one is empty, two look equal, or each begins with a letter, in another order.
    """
    seen = [as_seen(choice) for choice in choices]
    own = [match[1] for match in map(OWN_LETTER.match, seen) if match]
    if len(own) == len(seen) and sorted(own) == list(string.ascii_uppercase[: len(own)]) != own:
        raise PrunecalError(
            f"{where} has choices with letters in another order, {brief(list(choices))}; put them "
            "in the order of their letters, or take the letters away"
        )
    if "" in seen or len(set(seen)) < len(seen):
        fault = "an empty choice" if "" in seen else "two equal choices"
        raise PrunecalError(
            f"{where} has {fault} among {brief(list(choices))}; correct or remove the question"
        )
