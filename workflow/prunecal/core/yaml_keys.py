"""What YAML reads as something else than is written: repeated keys, numbers of another base."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from prunecal.core.errors import PrunecalError, brief

NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
MERGE = "tag:yaml.org,2002:merge"  # of `<<`, of which every value counts
OTHER_BASE = re.compile(r"[-+]?(0[0-9_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")  # 8 or 60
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the quick one, where it was built


def refuse_repeated_keys(path: Path) -> None:
    """Refuse a file in which one mapping has a key twice, or a number is written as no decimal.

    Of a repeated key the library keeps the last value; 010 it takes for 8, and 1:30 for 90. A file
    that is no YAML is left to who reads it.

    Raises:
        PrunecalError: names the file, the line and the key or number.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":  # a hundred times quicker, which thousands of cells need
            json.loads(text, object_pairs_hook=lambda pairs: _check_pairs(path, pairs))
            return
        root = yaml.compose(text, Loader=LOADER)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return
    pending, seen = [root], set()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue  # an alias
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            _check(path, node)
            pending += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            pending += node.value
        elif isinstance(node, yaml.ScalarNode):
            _check_number(path, node)


def refuse_repeated_settings(arguments: Iterable[str]) -> None:
    """Refuse arguments of `--config` of which two give one setting; the last would count.

    Raises:
        PrunecalError: names the setting.
    """
    seen = set()
    for argument in arguments:
        key, _, text = argument.partition("=")
        try:
            root = yaml.compose(text, Loader=LOADER)
        except yaml.YAMLError:
            root = None  # plain text
        for setting in _settings(root, key):
            if setting in seen:
                raise PrunecalError(f"--config gives {brief(setting)} twice; remove one of them")
            seen.add(setting)


def _settings(node: yaml.Node | None, name: str) -> Iterator[str]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _settings(value, f"{name}: {key.value}")
    else:
        yield name


def _check_number(path: Path, scalar: yaml.ScalarNode) -> None:
    is_number = scalar.tag in NUMBERS and not scalar.style  # not in quotes
    if is_number and OTHER_BASE.fullmatch(scalar.value):
        read = yaml.safe_load(scalar.value)
        raise PrunecalError(
            f"{path} line {scalar.start_mark.line + 1} has {scalar.value}, which YAML reads as the "
            f"number {read}; write {read} if you mean that, or quotes around a text, or a decimal "
            "number without 0 before it"
        )


def _check_pairs(path: Path, pairs: list[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise PrunecalError(
                f"{path} repeats the key {brief(key)}, whose first value would be lost; remove one "
                "of them"
            )
        seen.add(key)


def _check(path: Path, mapping: yaml.MappingNode) -> None:
    lines: dict[tuple[str, str], int] = {}
    for key, _ in mapping.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
            continue
        if (key.tag, key.value) in lines:
            raise PrunecalError(
                f"{path} line {line} repeats the key {brief(key.value)} of line "
                f"{lines[key.tag, key.value]}, whose value would be lost; remove one of them"
            )
        lines[key.tag, key.value] = line
