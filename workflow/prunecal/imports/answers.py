"""Files of answers: which cells they hold, and the rows of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecal.core.errors import PrunecalError, brief, cut, nearest
from prunecal.core.redaction import expanded
from prunecal.datasets._answers import is_missing, literal
from prunecal.datasets._records import header, records
from prunecal.imports.option_scores import FORMS, LOG_PROBABILITIES, PREFIX, number_of
from prunecal.study.budgets import ALL, SHARE, Budget, share_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prunecal.study.data_settings import Imported

NAMES = ("model", "dataset", "strategy", "budget")  # columns that tell cells apart
DETAILS = ("family", "parameters", "visual_tokens", "tokens_per_layer")
QUESTION = ("question_id", "image_id", "subset", "text", "options", "label")
KEPT = ("n_visual", "coverage", "log_normaliser", "top_token")
READINGS = ("spelling_logits", "letter_logits")  # of a study's own export
OF_OPTIONS = ("option_tokens", "option_spellings")
STATED = ("prediction", "confidence")
ALIASES = {"logprobs": LOG_PROBABILITIES}

COLUMNS = (*NAMES, *DETAILS, *QUESTION, *KEPT, *READINGS, *OF_OPTIONS, *STATED)


@dataclass(frozen=True)
class Layout:
    """What the columns of a file hold.

    Attributes:
        columns: those that are read.
        form: one of option_scores.FORMS, None if there are only stated confidences.
        by_option: column of each option's number, if options have columns of their own.
        own: the file's own name of each column of another name.
        unread: columns of the file that mean nothing here.
    """

    columns: tuple[str, ...]
    form: str | None
    by_option: dict[str, str] = field(default_factory=dict)
    own: Mapping[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: Path, own: Mapping[str, str]) -> Layout:
        """Return the layout of a file.

        Args:
            path: the file.
            own: its own name of each column that has another name than docs/import-answers.md says.

        Raises:
            PrunecalError: it has no scores, or scores in two forms, or lacks a column of `own`,
                or `own` has a name that means nothing here.
        """
        names = _renamed(path, own)
        forms: dict[str, dict[str, str]] = {}
        for name in names:
            whole = ALIASES.get(name, name)
            if whole in FORMS:
                forms.setdefault(whole, {})[""] = name
            for prefix, form in PREFIX.items():
                if name.startswith(prefix) and name != prefix:
                    forms.setdefault(form, {})[name.removeprefix(prefix)] = name
        stated = [name for name in STATED if name in names]
        if len(forms) > 1 or any("" in by and len(by) > 1 for by in forms.values()):
            given = [name for by in forms.values() for name in by.values()]
            raise PrunecalError(
                f"{path} has scores in several forms ({', '.join(given)}); keep the columns of one"
            )
        if not forms and len(stated) < len(STATED):
            raise PrunecalError(
                f"{path} has no scores among its columns {cut(', '.join(names))}; give "
                f"{', '.join(FORMS)}, a column for each option such as probability_A, or "
                f"{' and '.join(STATED)}, or say which columns they are with "
                "`--columns probability_A=…`"
            )
        form, by_option = next(iter(forms.items()), (None, {}))
        known = {*COLUMNS, *by_option.values()}
        if "" in by_option:
            by_option = {}
        _refuse_doubled(path, by_option)
        columns = tuple(name for name in names if name in known)
        unread = tuple(name for name in names if name not in known)
        return cls(columns, form, by_option, own, unread)

    def records(self, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the rows of the file and where each is, under the names that columns have here."""
        columns = {name: self.own.get(name, name) for name in self.columns}
        for where, row in records(path, columns.values()):
            yield where, {name: row[column] for name, column in columns.items()}

    def scores_of(self, row: Mapping[str, Any]) -> Any:
        """Return what a row says of its options: a value, or numbers by option."""
        if self.by_option:
            return {
                option: row[column]
                for option, column in self.by_option.items()
                if not is_missing(row[column])
            }
        name = next(one for one in row if ALIASES.get(one, one) == self.form)
        return row[name]


def _renamed(path: Path, own: Mapping[str, str]) -> list[str]:
    """Return the names of a file's columns, those of `own` under the names that they stand for."""
    names, here = header(path), dict[str, list[str]]()
    for name, column in own.items():
        here.setdefault(column, []).append(name)
        if name not in (*COLUMNS, *ALIASES, *FORMS) and not _is_of_option(name):
            if name in names:
                raise PrunecalError(
                    f"--columns {name}={column}: {name!r} is the file's own name; write it the "
                    f"other way round, {column}={name}"
                )
            raise PrunecalError(
                f"{path} cannot have a column for {name!r}{nearest(name, [*COLUMNS, *FORMS])}, "
                f"which is not read; name {', '.join((*COLUMNS, *FORMS, *ALIASES))}, or an option "
                f"after {', '.join(PREFIX)}"
            )
        if column not in names:
            raise PrunecalError(
                f"{path} has no column {column!r} to stand for {name} (it has "
                f"{cut(', '.join(names))}); correct `columns:`"
            )
        if name in names and column != name:
            raise PrunecalError(
                f"{path} has a column {name!r} beside {column!r}, which is to stand for it; "
                "rename or remove one"
            )
    return [name for column in names for name in here.get(column, [column])]


def _refuse_doubled(path: Path, by_option: Mapping[str, str]) -> None:
    """Refuse the columns that pandas makes of one that stands twice, as options of their own."""
    for option, column in by_option.items():
        name, _, number = option.rpartition(".")
        if name in by_option and number.isdecimal() and not name.isdecimal():
            raise PrunecalError(
                f"{path} has the columns {by_option[name]!r} and {column!r}, as pandas writes one "
                "that stands twice; remove one"
            )


def _is_of_option(name: str) -> bool:
    return any(name.startswith(prefix) and name != prefix for prefix in PREFIX)


@dataclass(frozen=True)
class Answers:
    """The rows of one cell, and what the columns hold."""

    path: Path
    layout: Layout
    rows: list[tuple[str, dict[str, Any]]]


class Files:
    """Files of answers, each read once, its rows grouped by cell."""

    def __init__(self) -> None:
        self._read: dict[tuple, tuple[Layout, dict[tuple, list[tuple[str, dict[str, Any]]]]]] = {}

    def answers(self, entry: Imported) -> Answers:
        """Return the rows of an entry's cell.

        Raises:
            PrunecalError: the file is missing, damaged or has no scores, or no row of the cell.
        """
        path = expanded(Path(entry.file))
        layout, groups = self._groups(path, entry.columns)
        wanted = {name: getattr(entry, name) for name in NAMES} | {"model": plain_model(entry)}
        present = [name for name in NAMES if name in layout.columns]
        key = tuple(str(wanted[name]) for name in present)
        if key not in groups and "model" in present:
            key = tuple(entry.model if name == "model" else str(wanted[name]) for name in present)
        if key not in groups:
            shown = ", ".join(f"{name} {brief(wanted[name])}" for name in present)
            raise PrunecalError(
                f"{path} has no row of {shown}; correct the entry of `imported:` or the file"
            )
        return Answers(path, layout, groups[key])

    def cells(self, path: Path, own: Mapping[str, str]) -> tuple[Layout, list[dict[str, Any]]]:
        """Return what a file says of each of its cells: NAMES and DETAILS, as far as it does.

        Args:
            path: the file.
            own: its own name of each column of another name.

        Raises:
            PrunecalError: as `answers`, or rows of one cell differ in DETAILS.
        """
        layout, groups = self._groups(path, own)
        described = []
        for rows in groups.values():
            where, first = rows[0]
            kept = {name: first[name] for name in (*NAMES, *DETAILS) if name in layout.columns}
            for other, row in rows:
                for name in DETAILS:
                    if name in kept and row[name] != kept[name]:
                        raise PrunecalError(
                            f"{other} has another {name} than {where}, of the same cell; give "
                            "each strategy a name of its own in the column strategy"
                        )
            described.append({name: value for name, value in kept.items() if not is_missing(value)})
        return layout, described

    def _groups(self, path: Path, own: Mapping[str, str]) -> tuple[Layout, dict[tuple, list]]:
        key = path, *sorted(own.items())
        if key not in self._read:
            layout = Layout.of(path, own)
            present = [name for name in NAMES if name in layout.columns]
            groups: dict[tuple, list] = {}
            for where, row in layout.records(path):
                groups.setdefault(tuple(_key(where, row, present)), []).append((where, row))
            if not groups:
                raise PrunecalError(f"{path} has no rows; give at least one answer")
            self._read[key] = layout, groups
        return self._read[key]


def plain_model(entry: Imported) -> str:
    """Return the model's name as files have it, without the kind of its confidence."""
    return entry.model.removesuffix(f"-{entry.confidence}")


def _key(where: str, row: Mapping[str, Any], names: list[str]) -> Iterator[str]:
    for name in names:
        value = row[name]
        if name == "budget":
            yield str(budget_of(where, value))
        elif is_missing(value) or not isinstance(value, str):
            raise PrunecalError(f"{where} has {brief(value)} as its {name}; give some text")
        else:
            yield value


def budget_of(where: str, value: Any) -> Budget:
    """Return a budget from a column: a number of tokens, a share of them, or all.

    Raises:
        PrunecalError: it is none of these.
    """
    text = value.strip() if isinstance(value, str) else ""
    if text == ALL:
        return ALL
    if SHARE.fullmatch(text):
        return share_text(text)
    number = number_of(where, "budget", value)
    if number is None or not number.is_integer():
        raise PrunecalError(
            f"{where} has the budget {brief(value)}; give a whole number, a share such as '25%', "
            f"or {ALL!r}"
        )
    return int(number)


def parameters_of(value: Any) -> dict[str, Any]:
    """Return a strategy's parameters from a column: an object, or one as JSON text.

    A null in text is a value; in parquet an object has a null for each key that others have.
    """
    read = literal(value) if isinstance(value, str) else value
    if not isinstance(read, dict):
        raise PrunecalError(
            f"the parameters {brief(value)} are not an object; give them as JSON, such as "
            '{"alpha": 0.5}'
        )
    return {name: one for name, one in read.items() if one is not None or read is not value}
