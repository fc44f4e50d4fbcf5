"""Any benchmark with one image per question, from a table whose columns the study names."""

from __future__ import annotations

import string
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from prunecal.core.errors import PrunecalError, brief
from prunecal.core.parameters import Commit, LocalPath
from prunecal.datasets import Dataset, as_seen, check_choices, question_fault
from prunecal.datasets._answers import (
    ABSENT,
    YES_NO,
    Answered,
    accepted_answers,
    given_text,
    is_missing,
    labels,
    lettered_options,
    listed_options,
    present_choices,
    yes_or_no,
)
from prunecal.datasets._letters import letters_in
from prunecal.datasets._parquet import content_digest, find
from prunecal.datasets._pictures import Identities, content, in_turn
from prunecal.datasets._selected import Selection, Where, selected
from prunecal.study import short_answers
from prunecal.study.prompts import IMAGE, choice_text, letter_text, pope_text

if TYPE_CHECKING:
    from collections.abc import Iterator

LABEL = "Table"
UNDIVIDED = "questions"  # the subset of a table that names none
OPTIONS = {"yes-no": "the options Yes and No", short_answers.FORM: "no options"}
MAX_NEW_TOKENS = 16  # as lmms-eval's VQA tasks have it
Column = str


class Params(Selection):
    """Where the table is, and which of its columns holds what."""

    path: LocalPath | None = Field(
        None, description="a parquet, JSON, CSV or TSV file, or a folder with `files:` in it"
    )
    repo: str | None = Field(None, description="a repository on the Hub instead")
    revision: Commit | None = Field(None, description="commit of that repository")
    files: str = Field("", description="which files of a folder or repository: a pattern")
    images: LocalPath | None = Field(
        None, description="folder of the images that a table names; `path:` if that is a folder"
    )
    form: Literal["multiple-choice", "yes-no", "short-answer"] = Field(
        "multiple-choice",
        description="what the model is asked for: a letter, yes or no, or a word or phrase",
    )
    question: Column = Field("question", description="column of the question's text")
    options: Column | list[Column] | None = Field(
        None, description="column of the list of choices, or the columns of choice A, B, …"
    )
    letters: Annotated[int, Field(ge=2, le=26)] | Literal["auto"] | None = Field(
        None,
        description="number of choices, if the question's text holds them; auto counts the letters "
        "before them in each row",
    )
    answer: Column = Field(
        "answer", description="column of the right answer, or of a list of accepted short answers"
    )
    answer_is: Literal["letter", "index", "number", "text", "flag"] | None = Field(
        None,
        description="how it is written: index counts from 0, number from 1, flag is 1 for yes; "
        "found out if not given",
    )
    max_new_tokens: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="tokens of a short answer at most, its end included; 16 if not given",
    )
    image: Column = Field("image", description="column of the image: bytes, file name or base64")
    image_id: Column | None = Field(
        None, description="column that names images; a digest of their bytes if not given"
    )
    question_id: Column | None = Field(
        None, description="column of ids; the row's number if not given"
    )
    hint: Column | None = Field(None, description="column of a text that precedes the question")
    absent: str = Field(
        ABSENT, description="text that stands for a choice that is not there, as an empty one does"
    )
    subset: Column | None = Field(None, description="column that divides the questions")
    without_image: Literal["refuse", "skip"] = Field(
        "refuse", description="what to do with rows that have no image"
    )

    @model_validator(mode="after")
    def _one_source_and_form(self) -> Params:
        if (self.path is None) == (self.repo is None):
            raise ValueError("give either `path:` or `repo:` (+ `revision:`)")
        if self.repo is not None and not self.revision:
            raise ValueError("give the revision (commit) of the repo, so that data are pinned")
        if self.repo is not None and not self.files:
            raise ValueError("give `files:`, the repository's tables, such as data/test-*.parquet")
        if self.form in OPTIONS:
            if self.options is not None or self.letters is not None:
                raise ValueError(f"`form: {self.form}` has {OPTIONS[self.form]}; name no others")
        elif (self.options is None) == (self.letters is None):
            raise ValueError(
                "give either `options:` or, if the question holds them, `letters:`; of questions "
                "without options say `form: yes-no` or `form: short-answer`"
            )
        if (self.form == "yes-no") < (self.answer_is == "flag"):
            raise ValueError("`answer_is: flag` belongs to `form: yes-no`")
        for key in ("answer_is", "max_new_tokens"):
            mine = (self.form == short_answers.FORM) == (key == "max_new_tokens")
            if getattr(self, key) is not None and not mine:
                raise ValueError(f"`{key}:` does not belong to `form: {self.form}`; remove it")
        return self

    def columns(self) -> list[Column]:
        """List the columns that hold a question without its image."""
        options = self.options if isinstance(self.options, list) else [self.options]
        named = (self.question, *options, self.answer, self.question_id, self.hint, self.subset)
        return [name for name in named if name is not None]


def load(params: Params) -> Dataset:
    """Read a table's questions, in the order of its files and rows.

    The image id is a digest of the image's bytes, so that questions on the same image are one
    cluster, or what `image_id:` names; the question id is the row's number, or what
    `question_id:` names.

    Raises:
        PrunecalError: a file is missing or damaged or lacks a column, or a row lacks something, has
            several images, an answer outside its options, or the id of an earlier row.
    """
    import pandas as pd

    files, revision = _files(params)
    folder = params.images or (params.path if params.path and params.path.is_dir() else None)
    identities = Identities()
    ids: list[str] = []
    kept: list[dict[str, Any]] = []
    answered: list[Answered] = []
    chosen = Where(params)
    for number, where, row in _rows(files, params, chosen):
        image = content(where, row[params.image], folder)
        if image is None:
            if params.without_image == "skip":
                chosen.left["without_image"] += 1
                continue
            raise PrunecalError(f"{where} has no image; give it one, or set `without_image: skip`")
        name = None if params.image_id is None else _name(where, row, params.image_id)
        ids.append(identities.id_of(where, image, name))
        options, text = _asked(where, row, params)
        answered.append(Answered(where, options, row[params.answer]))
        short = params.form == short_answers.FORM
        kept.append(
            {
                "question_id": f"row-{number}"
                if params.question_id is None
                else _name(where, row, params.question_id),
                "image_id": ids[-1],
                "subset": UNDIVIDED if params.subset is None else _name(where, row, params.subset),
                "text": text,
                "options": options
                if params.form in OPTIONS
                else list(string.ascii_uppercase[: len(options)]),
            }
            | ({"answers": accepted_answers(where, row[params.answer])} if short else {})
        )
    chosen.tell()
    for record, label in zip(kept, _labels(answered, params), strict=True):
        record["label"] = label
    refuse_faults(kept, answered)
    images = in_turn(_images(files, params, folder), ids)
    if params.repo is None:
        revision = identities.pinned(revision)
    most = (params.max_new_tokens or MAX_NEW_TOKENS) if params.form == short_answers.FORM else None
    return Dataset(
        pd.DataFrame(kept), images, revision, places=identities.places, max_new_tokens=most
    )


def refuse_faults(records: list[dict[str, Any]], answered: list[Answered]) -> None:
    """Refuse what no later stage could use, by file and row.

    Args:
        records: rows of `Dataset.questions`.
        answered: tells where each is.

    Raises:
        PrunecalError: see `datasets.check`.
    """
    first: dict[str, str] = {}
    for record, one in zip(records, answered, strict=True):
        if fault := question_fault(SimpleNamespace(**record)):
            raise PrunecalError(f"{one.where} {fault}")
        other = first.setdefault(record["question_id"], one.where)
        if other != one.where:
            raise PrunecalError(
                f"{one.where} repeats the id {brief(record['question_id'])} of {other}; give every "
                "question its own id"
            )


def _files(params: Params) -> tuple[list[Path], str]:
    """Return the table's files and what pins them."""
    if params.path is None:
        return find(params)
    if params.path.is_dir():
        if not params.files:
            raise PrunecalError(
                f"{params.path} is a folder; give `files:`, the tables in it, such as *.parquet"
            )
        return find(params)
    return [params.path], content_digest([params.path])


def _rows(
    files: list[Path], params: Params, chosen: Where
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    names = params.columns()
    if params.image_id is not None:
        names.append(params.image_id)
    return selected(files, names, params.image, params, chosen)


def _images(files: list[Path], params: Params, folder: Path | None) -> Iterator[tuple[str, bytes]]:
    identities = Identities()
    for _, where, row in _rows(files, params, Where(params)):
        image = content(where, row[params.image], folder)
        if image is not None:
            name = None if params.image_id is None else _name(where, row, params.image_id)
            yield identities.id_of(where, image, name), image


def _name(where: str, row: dict[str, Any], column: str) -> str:
    return given_text(where, row, column).strip()


def _asked(where: str, row: dict[str, Any], params: Params) -> tuple[list[str], str]:
    """Return a question's options and what the user says."""
    question = row[params.question]
    if not isinstance(question, str) or is_missing(question) or not as_seen(question):
        raise PrunecalError(
            f"{where} has {brief(question)} as its {params.question}; give it some text"
        )
    question = question.strip().removeprefix(IMAGE).lstrip()  # where the template puts it
    hint = "" if params.hint is None or is_missing(row[params.hint]) else str(row[params.hint])
    before = f"{hint}\n" if hint else ""
    if params.form == "yes-no":
        return YES_NO, pope_text(before + question)
    if params.form == short_answers.FORM:
        first = accepted_answers(where, row[params.answer])[0]
        return [first, short_answers.OTHER], pope_text(before + question)
    if params.letters is not None:
        letters = letters_in(where, question, params.letters)
        return list(string.ascii_uppercase[:letters]), letter_text(before + question)
    if isinstance(params.options, list):
        values = [row[name] for name in params.options]
        absent = params.absent if "absent" in params.model_fields_set else None
        options = lettered_options(where, params.options, present_choices(where, values, absent))
    else:
        if is_missing(row[params.options]):
            raise PrunecalError(
                f"{where} has no {params.options}; add them, or leave such rows out by "
                f"`leave_out: {{{params.options}: null}}`"
            )
        options = listed_options(where, row[params.options])
    if not 2 <= len(options) <= len(string.ascii_uppercase):
        raise PrunecalError(
            f"{where} has {len(options)} options; give 2 to {len(string.ascii_uppercase)}, or "
            "leave such rows out by `leave_out:`"
        )
    check_choices(where, options)
    return options, choice_text(question, options, hint)


def _labels(answered: list[Answered], params: Params) -> list[int]:
    if params.form == short_answers.FORM:
        return [0] * len(answered)
    if params.form == "yes-no":
        flag = params.answer_is == "flag"
        return [yes_or_no(one.where, one.answer, flag=flag) for one in answered]
    return labels(answered, params.answer_is)
