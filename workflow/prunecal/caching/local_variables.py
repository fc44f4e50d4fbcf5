"""Drop a function's local variables that nothing reads, and number the others."""

from __future__ import annotations

import ast
import builtins

from prunecal.caching.normal_form import FUNCTIONS, UNCLEAR, Function, Strip, called, is_pure

BUILTINS = set(dir(builtins))


class _DropUnused(Strip):
    """Drops assignments to local variables that nothing reads any more."""

    def __init__(self, unused: set[str]) -> None:
        self._unused = unused

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:  # noqa: N802
        """Leave classes alone: their names are attributes."""
        return node

    def visit_Assign(self, node: ast.Assign | ast.AugAssign) -> ast.AST | None:  # noqa: N802
        """Drop the assignment, and the value too if nothing else comes of it."""
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if all(isinstance(one, ast.Name) and one.id in self._unused for one in targets):
            return None if is_pure(node.value) else ast.Expr(node.value)
        return self.generic_visit(node)

    visit_AugAssign = visit_Assign  # noqa: N815


def reduce_function(function: Function, known: set[str]) -> None:
    """Drop a stripped function's variables that nothing reads and number the others, in place.

    Args:
        function: its syntax tree.
        known: names of the module, which are never numbered.
    """
    seen: set[str] = set()
    while True:
        nodes = list(ast.walk(function))
        names = [one for one in nodes if isinstance(one, ast.Name)]
        stored = {one.id for one in names if isinstance(one.ctx, ast.Store)}
        fixed = _fixed_names(nodes)
        read = {one.id for one in names if not isinstance(one.ctx, ast.Store)}
        unused = stored - read - fixed - _may_change_others(nodes)
        if unused <= seen:
            break
        seen |= unused
        dropper = _DropUnused(unused)
        function.body = [kept for one in function.body if (kept := dropper.visit(one))]
        function.body = function.body or [ast.Pass()]
    if any(isinstance(one, ast.Match | ast.ClassDef) for one in nodes) or read & UNCLEAR:
        return
    fixed |= known | BUILTINS
    numbers: dict[str, str] = {}
    for one in nodes:
        if isinstance(one, ast.ExceptHandler) and one.name and one.name not in fixed:
            one.name = numbers.setdefault(one.name, f"_{len(numbers)}")
        elif isinstance(one, ast.Name) and one.id in stored - fixed:
            numbers.setdefault(one.id, f"_{len(numbers)}")
    for one in names:
        one.id = numbers.get(one.id, one.id)


def _may_change_others(nodes: list[ast.AST]) -> set[str]:
    """Return the names by which `+=` and the like may change a value that has another name too."""
    augmented: set[str] = set()
    counters: set[str] = set()  # numbers and texts, which cannot be changed
    values: set[str] = set()
    for one in nodes:
        if isinstance(one, ast.AugAssign):
            augmented.add(called(one.target))
        elif isinstance(one, ast.Assign):
            names = {called(target) for target in one.targets}
            (counters if isinstance(one.value, ast.Constant) else values).update(names)
    return augmented - (counters - values)


def _fixed_names(nodes: list[ast.AST]) -> set[str]:
    """Return the names of a function that others may use: of its arguments, imports, functions."""
    fixed: set[str] = set()
    for one in nodes:
        if isinstance(one, ast.arg):
            fixed.add(one.arg)
        elif isinstance(one, ast.Global | ast.Nonlocal):
            fixed.update(one.names)
        elif isinstance(one, ast.alias):
            fixed.add((one.asname or one.name).partition(".")[0])
        elif isinstance(one, FUNCTIONS):
            fixed.add(one.name)
    return fixed
