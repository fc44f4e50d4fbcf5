"""Benchmarks as VLMEvalKit distributes them: a TSV file with images in base64.

The layout is that of `vlmeval/dataset/image_base.py` of github.com/open-compass/VLMEvalKit: columns
`index`, `question`, `answer`, `image`, choices in `A`, `B`, …, `hint`, `category`. An image of at
most 64 characters is the index of the row that holds it. Rows without an image are left out, as
that project does by default.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

from pydantic import Field

from prunecal.core.cli import log
from prunecal.core.errors import PrunecalError, brief
from prunecal.core.parameters import LocalPath
from prunecal.datasets import Dataset, as_seen, check_choices
from prunecal.datasets._answers import (
    YES_NO,
    Answered,
    is_missing,
    labels,
    lettered_options,
    yes_or_no,
)
from prunecal.datasets._parquet import content_digest
from prunecal.datasets._pictures import ONE_IMAGE, Identities, content, in_turn, listed
from prunecal.datasets._records import header, records
from prunecal.datasets._selected import Selection, Where
from prunecal.datasets._wording import Worded
from prunecal.datasets.table import UNDIVIDED, refuse_faults

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LABEL = "VLMEvalKit"
LONGEST_INDEX = 64  # characters; a longer image is base64
SEVERAL = "several images"  # instead of an image's id
NEEDED = ("index", "question", "answer")


class Params(Worded, Selection):
    """Where the benchmark's file is."""

    path: LocalPath = Field(description="the benchmark's TSV file")
    images: LocalPath | None = Field(
        None, description="folder of the images, for a file with image_path instead of image"
    )


def load(params: Params) -> Dataset:
    """Read a benchmark of multiple choice or of yes and no, in the order of its rows.

    The image id is a digest of the image's bytes; the question id is the row's index; the subset is
    its category.

    Raises:
        PrunecalError: the file is missing or damaged or lacks a column, or a row has several
            images, none where it refers to one, no options, or an answer outside them.
    """
    import pandas as pd

    path = params.path
    names = header(path) if path.suffix.lower() == ".tsv" else _refuse_suffix(path)
    letters = [name for name in string.ascii_uppercase if name in names]
    image = "image_path" if "image_path" in names and "image" not in names else "image"
    optional = [name for name in ("hint", "category") if name in names]
    columns = [*NEEDED, *letters, *optional]

    identities = Identities()
    ids = _image_ids(params, image, identities)
    kept: list[dict[str, Any]] = []
    answered: list[Answered] = []
    chosen, count = Where(params), 0
    for where, row in records(path, [*columns, *chosen.columns]):
        if not chosen.keeps(row):
            chosen.left["where, leave_out"] += 1
            continue
        count += 1
        image_id = ids[_index(where, row)]
        if image_id == SEVERAL:
            chosen.left["several_images"] += 1
            continue
        if image_id is None:
            continue
        record, one = _question(params, where, row, letters)
        kept.append({**record, "image_id": image_id})
        answered.append(one)
    if not count:
        chosen.refuse_none()
    if not kept:
        raise PrunecalError(f"{path} has no row with one image; give a benchmark's own file")
    chosen.tell()
    if blank := count - len(kept) - chosen.left["several_images"]:
        log.warning("%s: %d rows without an image are left out", path.name, blank)
    read = (
        labels(answered, "letter")
        if letters
        else [yes_or_no(one.where, one.answer) for one in answered]
    )
    for record, label in zip(kept, read, strict=True):
        record["label"] = label
    refuse_faults(kept, answered)
    images = in_turn(_images(params, image, ids), [record["image_id"] for record in kept])
    revision = identities.pinned(content_digest([path]))
    return Dataset(pd.DataFrame(kept), images, revision, places=identities.places)


def _refuse_suffix(path: Path) -> list[str]:
    raise PrunecalError(f"{path} is no .tsv file; give `path:` a file of VLMEvalKit")


def _has_several(image: str) -> bool:
    return len(listed(image) or []) > 1


def _index(where: str, row: dict[str, Any]) -> str:
    text = row["index"].strip()
    if not text:
        raise PrunecalError(f"{where} has no index; give every row its own")
    return _unpadded(text)


def _unpadded(index: str) -> str:
    """Return an index as that project compares it: whole numbers without leading zeros."""
    return (index.lstrip("0") or "0") if index.isdecimal() and index.isascii() else index


def _image_ids(params: Params, image: str, identities: Identities) -> dict[str, str | None]:
    """Return the id of each row's image by the row's index, None where it has none.

    Of rows that are left out, those alone are there whose image a row refers to.
    """
    ids: dict[str, str | None] = {}
    references: dict[str, tuple[str, str]] = {}
    places: dict[str, str] = {}
    chosen = Where(params)
    for where, row in records(params.path, ["index", image, *chosen.columns]):
        index, value = _index(where, row), row[image].strip()
        if index in places:
            raise PrunecalError(
                f"{where} repeats the index {brief(index)} of {places[index]}; give every row its "
                "own"
            )
        places[index] = where
        if not chosen.keeps(row):
            continue
        if _refers(image, value):
            references[index] = where, _unpadded(value)
        elif _has_several(value) and params.several_images == "skip":
            ids[index] = SEVERAL
        else:
            held = content(where, value, params.images)
            ids[index] = None if held is None else identities.id_of(where, held)
    needed = {other for _, other in references.values()} - ids.keys()
    for where, row in records(params.path, ["index", image]) if needed else ():
        index, value = _index(where, row), row[image].strip()
        if index in needed and not _refers(image, value):
            if _has_several(value):
                ids[index] = SEVERAL
            elif held := content(where, value, params.images):
                ids[index] = identities.id_of(where, held)
    for index, (where, other) in references.items():
        if ids.get(other) is None or other in references:
            raise PrunecalError(
                f"{where} refers to the image of row {brief(other)}, which holds none; give it an "
                "image of its own or the index of a row that has one"
            )
        if ids[other] == SEVERAL and params.several_images != "skip":
            raise PrunecalError(
                f"{where} refers to the image of row {brief(other)}, which has several; {ONE_IMAGE}"
            )
        ids[index] = ids[other]
    return ids


def _refers(image: str, value: str) -> bool:
    """Tell whether a row's image is the index of another row."""
    return image == "image" and 0 < len(value) <= LONGEST_INDEX and not is_missing(value)


def _images(params: Params, image: str, ids: dict[str, str | None]) -> Iterator[tuple[str, bytes]]:
    identities = Identities()
    for where, row in records(params.path, ["index", image]):
        value = row[image].strip()
        if ids.get(_index(where, row), SEVERAL) != SEVERAL and not _refers(image, value):
            held = content(where, value, params.images)
            if held is not None:
                yield identities.id_of(where, held), held


def _question(
    params: Params, where: str, row: dict[str, Any], letters: list[str]
) -> tuple[dict[str, Any], Answered]:
    """Return a question but for its image and label, and its answer as the row has it."""
    question, hint = row["question"], row.get("hint", "")
    if is_missing(question) or not as_seen(question):
        raise PrunecalError(f"{where} has no question; give it some text")
    if is_missing(hint):
        hint = ""
    if letters:
        choices = lettered_options(where, letters, [row[name] for name in letters])
        if len(choices) < 2:
            raise PrunecalError(
                f"{where} has {len(choices)} options; give at least two, or leave such rows out "
                "by `leave_out:`"
            )
        check_choices(where, choices)
        options, text = letters[: len(choices)], params.choices(question, choices, hint)
    else:
        options, text = YES_NO, params.yes_no(f"{hint}\n{question}" if hint else question)
    record = {
        "question_id": row["index"].strip(),
        "subset": row.get("category", UNDIVIDED).strip(),
        "text": text,
        "options": options,
    }
    return record, Answered(where, options, row["answer"])
