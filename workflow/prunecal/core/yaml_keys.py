"""Keys that stand twice in a YAML file, of whose values the library silently keeps the last."""

from pathlib import Path

import yaml

from prunecal.core.errors import PrunecalError, brief

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the quick one, where it was built


def refuse_repeated_keys(path: Path) -> None:
    """Refuse a file in which one mapping has a key twice.

    A file that is no YAML is left to who reads it.

    Raises:
        PrunecalError: names the file, the line and the key.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=LOADER)
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


def _check(path: Path, mapping: yaml.MappingNode) -> None:
    lines: dict[tuple[str, str], int] = {}
    for key, _ in mapping.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            continue
        if (key.tag, key.value) in lines:
            raise PrunecalError(
                f"{path} line {line} repeats the key {brief(key.value)} of line "
                f"{lines[key.tag, key.value]}, whose value would be lost; remove one of them"
            )
        lines[key.tag, key.value] = line
