"""Which code a stage reaches: from its `__main__`, by the names that each piece of code uses.

Nothing heavy is imported: the Snakefile needs this on every start.
"""

from __future__ import annotations

import ast
import hashlib
import re
from typing import TYPE_CHECKING

from prunecal.caching.code_files import (
    WORD,
    code_path,
    every_plugin,
    files_beside,
    is_own,
    is_plumbing,
    is_used,
    plugin_folder,
)
from prunecal.caching.normal_form import UNCLEAR
from prunecal.caching.source_units import VERSION, Module

if TYPE_CHECKING:
    from collections.abc import Iterable

LABEL = "LABEL"  # a plugin's display name: shown by pages, never part of a number
ENTRY = re.compile(r"(.+)\.(\w+)\[(.+)\]")  # of a mapping
_modules: dict[str, Module] = {}  # read so far


class Reach:
    """What is reached from some modules.

    Attributes:
        lines: for each piece of code, its module, its name and the digest of its form; and what
            each name stands for that it uses and its module imports.
    """

    def __init__(self, modules: tuple[str, ...], *, texts: bool) -> None:
        self.lines: set[str] = set()
        self._texts = texts
        self._entries: dict[tuple[str, ...], set[str]] = {}
        for entry in filter(None, map(ENTRY.fullmatch, modules)):
            self._entries.setdefault(entry.group(1, 2), set()).add(entry[3])
        modules = tuple(module for module in modules if not ENTRY.fullmatch(module))
        self._roots = {module.partition(".")[0] for module in modules}
        self._plugins = [module for module in modules if plugin_folder(module)]
        self._opened: set[str] = set()
        self._values: set[str] = set()  # modules of which any attribute may be used
        self._attributes: set[str] = set()  # names of attributes of unknown values
        self._asked: set[str] = set()  # attributes of which only counts who has them
        self._unclear = False  # whether attributes are used whose names are not known
        # the methods of the classes reached, by their own names
        self._methods: dict[str, list[tuple[str, str]]] = {}
        self._seen: set[tuple[str, str]] = set()
        self._pending: list[tuple[str, str]] = []
        for root in self._roots:
            if code_path(f"{root}.storage"):
                self._pending.append((f"{root}.storage", VERSION))
        for module in modules:
            self._start(module)
        self._take_pending()
        self._pending += self._orphans()
        self._take_pending()
        self._count_asked()

    def _take_pending(self) -> None:
        while self._pending:
            self._take(*self._pending.pop())

    def _count_asked(self) -> None:
        """Count which of the modules and classes have the attributes that code asks for."""
        for module in self._values:
            code = _read_module(module)
            have = self._asked & {*code.nodes, *code.bindings}
            self.lines |= {f"{module} has {name}" for name in have}
        for name in self._asked:
            self.lines |= {f"{module} has {one}" for module, one in self._methods.get(name, ())}

    def _orphans(self) -> list[tuple[str, str]]:
        """List the constants that no module names: what reads them cannot be told."""
        return [
            (module, name)
            for module in self._opened
            for name in _read_module(module).constants
            if not is_used(module.partition(".")[0], name) and not name.startswith("__")
        ]

    def _start(self, module: str) -> None:
        """Take in a module that is run, or a plugin of which any part may be used."""
        if code_path(module) is None:
            raise ModuleNotFoundError(f"{module} is not a module of the project or of a plugin")
        self._open(module)
        if plugin_folder(module):
            self._use(module)
        else:
            code = _read_module(module)
            self._pending += [(module, name) for name in code.main or code.nodes]

    def _open(self, module: str) -> None:
        """Take in what runs when a module is imported."""
        if module in self._opened or is_plumbing(module) or code_path(module) is None:
            return  # None: a folder without __init__.py, which runs nothing
        self._opened.add(module)
        if "." in module:
            self._open(module.rpartition(".")[0])
        code = _read_module(module)
        self._pending += [(module, name) for name in code.always]
        for target in (*code.bindings.values(), *code.stars):
            self._imports(target)

    def _imports(self, target: str) -> list[str]:
        """Take in the module that a dotted name begins with; return the names within it."""
        parts = target.split(".")
        if parts[0] not in self._roots:
            return []
        depth = next(d for d in range(len(parts), 0, -1) if code_path(".".join(parts[:d])))
        module = ".".join(parts[:depth])
        self._open(module)
        return [module, *parts[depth:]]

    def _use(self, module: str) -> None:
        """Take in a module whose attributes are used through a variable."""
        if module in self._values or is_plumbing(module):
            return
        self._open(module)
        self._values.add(module)
        if self._unclear:
            self._pending += [(module, one) for one in _read_module(module).nodes]
        for name in list(self._attributes):
            self._name(module, name)

    def _name(self, module: str, name: str) -> None:
        """Reach a name of a module, wherever that has it from."""
        code = _read_module(module)
        if name in code.nodes:
            self._pending.append((module, name))
        if name in code.bindings:
            self._follow(code.bindings[name])
        for star in code.stars:
            self._follow(f"{star.removesuffix('.*')}.{name}")
        if "__getattr__" in code.nodes and name not in code.nodes | code.bindings:
            for path in sorted(code.folder.glob("[!_]*.py")):  # one of them defines it
                if code_path(part := f"{module}.{path.stem}"):
                    self._open(part)
                    self._name(part, name)

    def _follow(self, dotted: str) -> None:
        """Reach what a full dotted name refers to."""
        if not (parts := self._imports(dotted)) or is_plumbing(parts[0]):
            return
        module, *names = parts
        if names:
            self._name(module, names[0])
            self._mention(names[1:])
        else:
            self._use(module)

    def _mention(self, attributes: Iterable[str]) -> None:
        """Reach all that may be meant by attributes of an unknown value."""
        for name in set(attributes) - self._attributes:
            self._attributes.add(name)
            for module in list(self._values):
                self._name(module, name)
            self._pending += self._methods.get(name, ())

    def _take(self, module: str, name: str) -> None:
        """Count a piece of code and reach what it names."""
        code = _read_module(module)
        if (module, name) in self._seen or name not in code.nodes:
            return
        if name == LABEL and not self._texts:
            return
        self._seen.add((module, name))
        if any(isinstance(node, ast.ClassDef) for node in code.nodes[name]):
            for method in code.methods(name):
                self._methods.setdefault(method, []).append((module, f"{name}.{method}"))
                if method in self._attributes:
                    self._pending.append((module, f"{name}.{method}"))
        units = code.units(name, self._entries.get((module, name)))
        for position, unit in enumerate(units):  # the last of several counts
            texts = unit.texts if self._texts else ""
            place = f"{position} " if position else ""
            self.lines.add(f"{module} {name} {place}{unit.digest} {texts}")
            for target in unit.bindings.values():
                self._imports(target)
            for dotted in unit.names:
                root, *rest = dotted.split(".")
                stands_for = code.bindings.get(root, "")
                if stands_for and not is_plumbing(stands_for):  # else an import could be swapped
                    self.lines.add(f"{module} {name} {root} {stands_for}")
                if root in unit.bindings:
                    self._follow(".".join([unit.bindings[root], *rest]))
                elif root in code.bindings:
                    self._follow(".".join([stands_for, *rest]))
                if root not in unit.bindings | code.bindings or root in code.nodes:
                    self._name(module, root)
                    self._mention(rest)
            self._asked |= unit.asked
            self._mention(unit.attributes | set(filter(WORD.fullmatch, unit.strings)))
            if unit.names & UNCLEAR and not self._unclear:
                self._unclear = True
                for value in self._values:
                    self._pending += [(value, one) for one in _read_module(value).nodes]
            for folder in unit.plugins:
                mine = [plugin for plugin in self._plugins if plugin_folder(plugin) == folder]
                for plugin in mine or every_plugin(module.partition(".")[0], folder):
                    self._use(plugin)
            for folder in unit.defaults:
                self._follow(f"{module.partition('.')[0]}.{folder}.protocol")
            for text in unit.strings:
                self._take_text(module, text)

    def _take_text(self, module: str, text: str) -> None:
        """Take in a module or a file beside the code, if a text is the name of one."""
        if text.partition(".")[0] in self._roots and "." in text and code_path(text):
            self._start(text)
            self._use(text)
        for path in files_beside(_read_module(module).folder).get(text, ()):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            self.lines.add(f"{module} {text}/{path.name} {digest}")


def _read_module(module: str) -> Module:
    if module not in _modules:
        path = code_path(module)
        if path is None:
            raise ModuleNotFoundError(f"no module named {module!r}")
        code = _modules[module] = Module(module, path)
        for name in code.bases:
            if _is_plain(f"{module}.{name}"):
                code.part(name)
    return _modules[module]


def _is_plain(dotted: str | None) -> bool:
    """Tell whether a class and all that it extends are the project's: no library calls it."""
    parts = (dotted or "").split(".")
    if not is_own(parts[0]) or len(parts) == 1:
        return False
    depth = next(d for d in range(len(parts), 0, -1) if code_path(".".join(parts[:d])) or d == 1)
    if depth != len(parts) - 1:
        return False
    code, name = _read_module(".".join(parts[:depth])), parts[-1]
    if name in code.bases:
        return all(map(_is_plain, code.bases[name]))
    return name not in code.nodes and _is_plain(code.bindings.get(name))
