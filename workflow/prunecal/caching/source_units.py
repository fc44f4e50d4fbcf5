"""Part a module into pieces of code, each with a digest and with what it names."""

from __future__ import annotations

import ast
import copy
import hashlib
import importlib.util
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prunecal.caching.local_variables import reduce_function
from prunecal.caching.normal_form import FUNCTIONS, Function, Strip, called, unknown_decorators

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

PLUGINS = ("strategies", "models", "datasets", "recipes")  # folders of plugins
VERSION = "VERSION"  # raised by hand: counts for all that import its module


@dataclass
class Unit:
    """Code that counts as a whole: a definition, a method, a constant or a statement.

    Attributes:
        digest: of its normal form.
        texts: descriptions that the normal form lacks.
        names: dotted names that it uses, for example "np.sort" and "order".
        attributes: attributes of values whose type is unknown.
        bindings: names that it imports itself, with what they stand for.
        strings: all texts, but for those in `asked`.
        asked: attributes of which it asks whether something has them (`hasattr`).
        plugins: folders of which it loads plugins.
        defaults: folders of plugins of which it may take a default from their protocol.
    """

    digest: str = ""
    texts: str = ""
    names: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    bindings: dict[str, str] = field(default_factory=dict)
    strings: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    plugins: set[str] = field(default_factory=set)
    defaults: set[str] = field(default_factory=set)


class Module:
    """A module's definitions by name, methods as "Class.method", and its other statements.

    Attributes:
        folder: where it lies.
        nodes: code by name.
        bindings: names that it imports, with what they stand for.
        stars: modules of which it imports all names.
        always: names of what runs when it is imported.
        main: names of what runs when it is started.
        constants: names to which a plain assignment gives a value.
        bases: for each class, the full dotted names of its base classes; None for one that is
            no plain name.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.folder = path.parent
        self._name = name
        self._package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        self.nodes: dict[str, list[ast.AST]] = {}
        self.bindings: dict[str, str] = {}
        self.stars: set[str] = set()
        self.always: list[str] = []
        self.main: list[str] = []
        self.constants: list[str] = []
        self.bases: dict[str, list[str | None]] = {}
        self._units: dict[str, list[Unit]] = {}
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            self._add(node)
        self.stars |= {self.bindings.pop("*")} if "*" in self.bindings else set()

    def units(self, name: str, entries: Collection[str] | None = None) -> list[Unit]:
        """Return the units that a name refers to: several if it is defined more than once.

        Args:
            name: of a piece of code.
            entries: keys of a mapping, which alone count of it; all if None.
        """
        if entries is not None:
            return [self._unit(_with_entries(node, entries)) for node in self.nodes[name]]
        if name not in self._units:
            self._units[name] = [self._unit(node) for node in self.nodes[name]]
        return self._units[name]

    def methods(self, name: str) -> list[str]:
        """List the methods that were taken out of a class."""
        return [one.partition(".")[2] for one in self.nodes if one.startswith(f"{name}.")]

    def _add(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            self.bindings |= self._imported(node)
        elif isinstance(node, ast.If) and called(node.test) == "TYPE_CHECKING":
            for one in node.orelse:
                self._add(one)
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            self.nodes.setdefault(node.name, []).append(node)
            if unknown_decorators(node):
                self.always.append(node.name)
            elif isinstance(node, ast.ClassDef) and not node.keywords:
                self.bases[node.name] = [self._full_name(base) for base in node.bases]
        elif names := _assigned(node):
            self.constants += names
            for name in names:
                self.nodes.setdefault(name, []).append(node)
                self.always += [VERSION] if name == VERSION else []
        elif not isinstance(getattr(node, "value", None), ast.Constant):  # a docstring
            self._add_statement(node)

    def _full_name(self, base: ast.expr) -> str | None:
        """Return what a base class is, as a dotted name that begins with a package's."""
        if isinstance(base, ast.Attribute):
            value = self._full_name(base.value)
            return value and f"{value}.{base.attr}"
        if not isinstance(base, ast.Name):
            return None
        return (
            self.bindings.get(base.id)
            or (base.id in self.nodes and f"{self._name}.{base.id}")
            or None
        )

    def part(self, name: str) -> None:
        """Take the methods out of a class of which no library calls them unseen."""
        for node in self.nodes[name]:
            if isinstance(node, ast.ClassDef):
                self._part(node)

    def _part(self, node: ast.ClassDef) -> None:
        for one in list(node.body):
            if not isinstance(one, FUNCTIONS) or one.name.startswith("__"):
                continue
            if not unknown_decorators(one):
                node.body.remove(one)
                self.nodes.setdefault(f"{node.name}.{one.name}", []).append(one)

    def _add_statement(self, node: ast.AST) -> None:
        """Record a statement under its own name and under all names that it defines."""
        names = [f"statement {sum(name.startswith('statement ') for name in self.nodes)}"]
        for one in ast.walk(node):
            if isinstance(one, ast.Import | ast.ImportFrom):
                self.bindings |= self._imported(one)
            elif isinstance(one, (*FUNCTIONS, ast.ClassDef)):
                names.append(one.name)
            elif isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store):
                names.append(one.id)
        for name in names:
            self.nodes.setdefault(name, []).append(node)
        started = isinstance(node, ast.If) and "'__main__'" in ast.dump(node.test)
        (self.main if started else self.always).append(names[0])

    def _imported(self, node: ast.Import | ast.ImportFrom) -> dict[str, str]:
        """Return the names that an import binds, with what they stand for."""
        if isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            source = importlib.util.resolve_name(source, self._package)
            return {alias.asname or alias.name: f"{source}.{alias.name}" for alias in node.names}
        bound = {alias.asname: alias.name for alias in node.names if alias.asname}
        plain = [alias.name for alias in node.names if not alias.asname]
        # `import a.b` binds a, and runs a.b
        return (
            bound
            | {name: name for name in plain}
            | {name.partition(".")[0]: name.partition(".")[0] for name in plain}
        )

    def _unit(self, node: ast.AST) -> Unit:
        unit = Unit()
        form: list[str] = []
        kept = Strip().visit(node)
        # no tree: messages alone
        node = kept if isinstance(kept, ast.AST) else ast.Module(kept or [], [])
        known = set(self.nodes) | set(self.bindings)
        for function in _outermost_functions(node):
            reduce_function(function, known)
        local = set()
        for one in ast.walk(node):
            if isinstance(one, ast.Import | ast.ImportFrom):
                unit.bindings |= self._imported(one)
            elif isinstance(one, ast.arg):
                local.add(one.arg)
            elif isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store):
                local.add(one.id)
        _describe(node, form, unit, local)
        unit.digest = hashlib.sha256(" ".join(form).encode()).hexdigest()
        return unit


def _with_entries(node: ast.AST, entries: Collection[str]) -> ast.AST:
    """Return an assignment of a mapping less the entries with other keys; other code as it is."""
    mapping = getattr(node, "value", None)
    if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(mapping, ast.Dict):
        return node
    pairs = [
        (key, value)
        for key, value in zip(mapping.keys, mapping.values, strict=True)
        if not isinstance(key, ast.Constant) or key.value in entries
    ]
    part = copy.copy(node)
    part.value = ast.Dict([key for key, _ in pairs], [value for _, value in pairs])
    return part


def _assigned(node: ast.AST) -> list[str]:
    """Return the names to which a plain assignment gives a value."""
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    if isinstance(node, ast.Assign | ast.AnnAssign) and all(
        isinstance(one, ast.Name) for one in targets
    ):
        return [one.id for one in targets]
    return []


def _outermost_functions(node: ast.AST) -> Iterator[Function]:
    if isinstance(node, FUNCTIONS):
        yield node
        return
    for child in ast.iter_child_nodes(node):
        yield from _outermost_functions(child)


def _describe(node: ast.AST, form: list[str], unit: Unit, local: set[str]) -> None:
    """Append a piece of code to a form that tells it from any other, and note what it names."""
    kind = node.__class__
    if kind is ast.Name or kind is ast.Attribute:
        attributes: list[str] = []
        while isinstance(node, ast.Attribute):
            attributes.insert(0, node.attr)
            node = node.value
        form.append(f".{'.'.join(attributes)}")
        if isinstance(node, ast.Name):
            form.append(node.id)
            is_known = node.id not in local
            unit.names.add(".".join([node.id, *attributes]) if is_known else node.id)
            unit.attributes.update(() if is_known else attributes)
            return
        unit.attributes.update(attributes)
        kind = node.__class__
    if isinstance(node, ast.Call):
        unit.texts += getattr(node, "texts", "")
        match node:
            case ast.Call(ast.Name("hasattr"), [owner, ast.Constant(str(asked))]):
                unit.asked.add(asked)
                form.append(f"hasattr {asked}")
                _describe(owner, form, unit, local)
                return
        if node.args and called(node) in ("load", "declared"):
            folders = unit.plugins if called(node) == "load" else unit.defaults
            folders |= set(PLUGINS) & {getattr(node.args[0], "value", None)}
    if isinstance(node, ast.Constant):
        form.append(f"={node.value!r}")
        if isinstance(node.value, str):
            unit.strings.add(node.value)
        return
    form.append(kind.__name__)
    for name in node._fields:
        value = getattr(node, name, None)
        if isinstance(value, ast.AST):
            _describe(value, form, unit, local)
        elif isinstance(value, list):
            form.append("[")
            for one in value:
                if isinstance(one, ast.AST):
                    _describe(one, form, unit, local)
                else:
                    form.append(repr(one))
            form.append("]")
        else:
            form.append(repr(value))
    form.append(")")
