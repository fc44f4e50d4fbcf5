"""The base of every block of settings: typed, described, unknown keys refused in plain words."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticKnownError

from prunecal.core.errors import brief, cut, misspelt, nearest
from prunecal.core.redaction import expanded


def _not_empty(path: Any) -> Any:
    if isinstance(path, str) and not path.strip():
        raise ValueError("the path is empty; give a path, or '.' for the working directory")
    return path


def _commit(revision: str) -> str:
    if not re.fullmatch("[0-9a-f]{40}", revision):
        raise ValueError(
            f"{brief(revision)} may name other files tomorrow; give the commit, 40 digits from "
            "the repository's history on the Hub"
        )
    return revision


LocalPath = Annotated[  # may begin with ~
    Path,
    BeforeValidator(_not_empty),
    AfterValidator(expanded),
    Field(json_schema_extra={"pattern": r"\S"}),
]
Commit = Annotated[  # a branch or a tag pins nothing
    str, AfterValidator(_commit), Field(json_schema_extra={"pattern": "^[0-9a-f]{40}$"})
]

WANTED = {  # what to give instead, by pydantic's name of the fault
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false, or where it may be, a number or text",
    "string_type": "text (in quotes, if YAML takes it for something else)",
    "list_type": "a list",
    "dict_type": "settings as `key: value`",
    "model_type": "settings as `key: value`",
    "literal_error": "{expected}",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "too_short": "at least one entry",
}


class Parameters(BaseModel):
    """Settings that are checked when made and never change after."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse YAML's yes and no for a number; pydantic would take them for 1 and 0.

        (A number in quotes is taken: so `snakemake --config` passes them on.)
        """
        annotation = cls.model_fields[str(info.field_name)].annotation
        kinds = get_args(annotation) or (annotation,)
        if isinstance(value, bool) and bool not in kinds:
            if float in kinds:
                raise PydanticKnownError("float_type")
            if int in kinds:
                raise PydanticKnownError("int_type")
        return value


def portable(params: Parameters) -> dict[str, Any]:
    """Return the settings that are given and are not paths of this machine."""
    given = params.model_dump(exclude_none=True)
    return {key: value for key, value in given.items() if not local_paths(value)}


def local_paths(value: Any) -> list[Path]:
    """List the paths in a setting: itself, or the entries of a list."""
    entries = value if isinstance(value, list) else [value]
    return [entry for entry in entries if isinstance(entry, Path)]


def sentence(error: ValidationError, kind: type[BaseModel]) -> str:
    """Say in one sentence which setting of a `kind` is wrong, and what to give instead.

    Of several faults an unknown key is told: it is often the misspelt name of a missing one.
    """
    faults = error.errors()
    fault = next((one for one in faults if one["type"] == "extra_forbidden"), faults[0])
    loc = fault["loc"]
    if loc[-1:] == ("bool",):  # the first kind of a union, of which pydantic tells each
        loc = loc[:-1]
    blocks, key = loc[:-1], loc[-1] if loc else ""
    place = ", ".join(map(_words, blocks))
    start = f"{place}: " if place else ""
    if fault["type"] == "extra_forbidden":
        known = fault.get("ctx", {}).get("known") or _known_keys(kind, blocks)
        return (
            f"{start}{brief(key)} is unknown{nearest(str(key), known)}; "
            f"known are {', '.join(known) or 'none'}"
        )
    start += _words(key)
    if fault["type"] == "missing":
        given = fault["input"] if isinstance(fault["input"], dict) else {}
        if close := misspelt(str(key), [name for name in given if isinstance(name, str)]):
            return f"{start} is missing; is {brief(close)} its misspelling?"
        return f"{start} is missing; add it"
    wanted = WANTED.get(fault["type"], "").format(**fault.get("ctx", {}))
    if wanted:
        return f"{start} = {_shown(fault['input'])} does not fit; give {wanted}"
    message = str(fault.get("ctx", {}).get("error", fault["msg"]))
    return f"{start}: {message}" if start else message


def _words(part: int | str) -> str:
    return f"entry {part + 1}" if isinstance(part, int) else cut(part)


def _shown(value: Any) -> str:
    """Return a value as YAML has it, or its kind if it is long."""
    if isinstance(value, list | tuple | dict):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool):
        return brief(value)
    return cut(json.dumps(value, ensure_ascii=False, default=str))


def _known_keys(kind: Any, blocks: Sequence[int | str]) -> list[str]:
    """List the valid keys of the block below `kind` in which an unknown key stood."""
    for block in blocks:
        if isinstance(block, str):
            kind = kind.model_fields[block].annotation
            kind = next(iter(get_args(kind)), kind)  # list[Model] -> Model
    return [field.alias or name for name, field in kind.model_fields.items()]
