"""Keys that stand twice in a YAML file, of whose values the library silently keeps the last."""

import json
from pathlib import Path

import yaml

from prunecal.core.errors import PrunecalError, brief

MERGE = "tag:yaml.org,2002:merge"  # of `<<`, of which every value counts
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the quick one, where it was built


def refuse_repeated_keys(path: Path) -> None:
    """Refuse a file in which one mapping has a key twice.

    A file that is no YAML is left to who reads it.

    Raises:
        PrunecalError: names the file, the line and the key.
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
