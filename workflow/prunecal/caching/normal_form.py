"""Reduce Python code to what can change a number: no message, help text, bound or annotation.

What is left out, and why it is safe:

- docstrings, comments, layout, and names of local variables carry no meaning;
- annotations of functions and variables are not read when code runs; those in the bodies of classes
  with a base class or an unknown decorator may be (pydantic), and stay;
- of a `raise`, the exception's type stays and its arguments go: they are its message;
- of a log call, a call within its arguments stays unless it is known to have no effect;
- a local variable that only messages used goes too;
- texts that a function with `fault` in its name returns or yields, or that are given to a variable
  with `fault` in its name, are messages; so are the arguments in MESSAGES;
- of a protocol, what a plugin or an object is only checked against: all but values and code;
- help texts of arguments, texts of progress bars, descriptions and bounds of pydantic fields.
"""

from __future__ import annotations

import ast
from typing import Any

LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log", "warn"}
LOGGERS = {"log", "logger", "logging", "warnings"}
PARSERS = {"ArgumentParser", "parser", "add_argument", "add_argument_group", "add_subparsers"}
BOUNDS = {"ge", "gt", "le", "lt", "min_length", "max_length", "multiple_of", "allow_inf_nan"}
DESCRIPTIONS = {"description", "title", "examples", "label", "definition", "formula", "source"}
IGNORED = {  # keyword arguments by the name of the function that takes them
    **dict.fromkeys(PARSERS, {"help", "metavar", "epilog", "usage", "prog"} | DESCRIPTIONS),
    **dict.fromkeys(("progress", "tqdm"), {"what", "unit", "desc", "total"}),
    "Field": BOUNDS | DESCRIPTIONS,
    "read_json": {"remedy"},
    "Metric": DESCRIPTIONS | {"unit"},  # of the catalogue of metrics
}
MESSAGES = {"check_file": 1, "readable": 1, "refuse_unlike": 0}  # an argument's place by function
PURE_DECORATORS = {
    *("dataclass", "cache", "lru_cache", "cached_property", "property", "contextmanager"),
    *("staticmethod", "classmethod", "total_ordering", "wraps", "abstractmethod"),
    *("no_grad", "inference_mode"),
}
NO_EFFECT = {
    *("len", "str", "repr", "int", "float", "round", "sum", "min", "max", "sorted", "list", "set"),
    *("tuple", "dict", "type", "isinstance", "hasattr", "range", "zip", "map", "any", "all", "abs"),
    *("join", "format", "strip", "splitlines", "items", "keys", "values", "get", "partition"),
    *("brief", "cut", "nearest", "name", "perf_counter"),
}
NO_FIELDS = ("ClassVar", "InitVar", "KW_ONLY")  # annotations that a dataclass reads
UNCLEAR = {"locals", "vars", "globals", "dir", "eval", "exec"}  # may use any name
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Function = ast.FunctionDef | ast.AsyncFunctionDef
LEAVES = (ast.Name, ast.Constant, ast.expr_context, ast.operator, ast.cmpop, ast.alias)
EFFECTS = (ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)


def called(node: ast.expr) -> str:
    """Return the last part of a dotted name or of what is called: "Field" of `pydantic.Field()`."""
    node = node.func if isinstance(node, ast.Call) else node
    return getattr(node, "attr", getattr(node, "id", ""))


def is_pure(node: ast.AST) -> bool:
    """Tell whether evaluating an expression is known to change nothing else."""
    return not any(
        isinstance(one, EFFECTS) or (isinstance(one, ast.Call) and called(one) not in NO_EFFECT)
        for one in ast.walk(node)
    )


def unknown_decorators(node: ast.AST) -> bool:
    """Tell whether a definition has a decorator that may register or change it."""
    return any(called(one) not in PURE_DECORATORS for one in getattr(node, "decorator_list", ()))


def _of_faults(name: str) -> bool:
    """Tell whether a name says that it is of faults: their texts are messages."""
    return bool({"fault", "faults"} & set(name.lower().split("_")))  # no "default"


def _is_log(node: ast.expr) -> bool:
    """Tell whether an expression is a call of a logger's or of `warnings.warn`."""
    function = node.func if isinstance(node, ast.Call) else None
    if not isinstance(function, ast.Attribute) or function.attr not in LOG_METHODS:
        return False
    return called(function.value) in LOGGERS


def _is_declaration(node: ast.stmt) -> bool:
    """Tell whether a statement of a protocol's body only says what an object must have."""
    if isinstance(node, FUNCTIONS):
        return all(isinstance(one, ast.Expr | ast.Pass) and is_pure(one) for one in node.body)
    return isinstance(node, ast.AnnAssign) and node.value is None


class _Blank(ast.NodeTransformer):
    """Leaves texts out of what describes faults, but not keys, by which values are looked up."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:  # noqa: N802
        """Keep the key."""
        node.value = self.visit(node.value)
        return node

    def visit_Dict(self, node: ast.Dict) -> ast.AST:  # noqa: N802
        """Keep the keys."""
        node.values = [self.visit(value) for value in node.values]
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:  # noqa: N802
        """Leave out a text."""
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, _node: ast.JoinedStr) -> ast.AST:  # noqa: N802
        """Leave out a text with values in it."""
        return ast.Constant("")


class Strip(ast.NodeTransformer):
    """Leaves out of a syntax tree what can change no number, in place.

    A call that loses descriptions keeps them in its attribute `texts`.
    """

    def visit(self, node: ast.AST) -> Any:
        """Visit a node, unless it can hold nothing to leave out."""
        return node if isinstance(node, LEAVES) else super().visit(node)

    def generic_visit(self, node: Any) -> ast.AST:
        """Visit what a node holds; a block that is left empty gets a `pass`."""
        super().generic_visit(node)
        if getattr(node, "body", None) == [] and not isinstance(node, ast.Module):
            node.body = [ast.Pass()]
        if hasattr(node, "type_comment"):
            node.type_comment = None
        return node

    def visit_FunctionDef(  # noqa: N802  ast's own name
        self, node: ast.FunctionDef | ast.AsyncFunctionDef
    ) -> ast.AST:
        """Drop annotations."""
        if not unknown_decorators(node):
            node.returns = None
            for argument in ast.walk(node.args):
                if isinstance(argument, ast.arg):
                    argument.annotation = None
        if _of_faults(node.name):
            for one in ast.walk(node):
                if isinstance(one, ast.Return | ast.Yield) and one.value is not None:
                    one.value = _Blank().visit(one.value)
        self.generic_visit(node)
        return node

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:  # noqa: N802
        """Mark the fields whose annotations may be read; of a protocol, keep values alone."""
        plain = not node.bases and not unknown_decorators(node)
        if any(called(base) == "Protocol" for base in node.bases) and not node.decorator_list:
            plain, node.body = True, [one for one in node.body if not _is_declaration(one)]
        fields: list[Any] = [one for one in node.body if isinstance(one, ast.AnnAssign)]
        for field in fields:
            field.keep = not plain or any(kind in ast.dump(field.annotation) for kind in NO_FIELDS)
            field.named = True  # a dataclass has it as a field
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: Any) -> ast.AST | None:  # noqa: N802
        """Drop annotations that nothing reads."""
        if hasattr(node, "named"):
            node.annotation = node.annotation if node.keep else ast.Constant("")
            return self.generic_visit(node)
        if node.value is None:
            return None
        return self.visit(ast.Assign(targets=[node.target], value=node.value))

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:  # noqa: N802
        """Drop the texts of faults."""
        if all(_of_faults(called(target)) for target in node.targets):
            node.value = _Blank().visit(node.value)
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:  # noqa: N802
        """Keep the type of an exception alone."""
        if isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
        node.cause = None
        return self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:  # noqa: N802
        """Keep the condition alone."""
        node.msg = None
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.AST] | None:  # noqa: N802
        """Drop a condition for messages alone."""
        if called(node.test) == "TYPE_CHECKING":
            return [self.visit(one) for one in node.orelse] or None
        self.generic_visit(node)
        empty = not node.orelse and all(isinstance(one, ast.Pass) for one in node.body)
        return None if empty and is_pure(node.test) else node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | list[ast.AST] | None:  # noqa: N802
        """Drop docstrings and log calls."""
        if isinstance(node.value, ast.Constant):
            return None
        call = node.value
        if isinstance(call, ast.Call) and _is_log(call):
            values = [*call.args, *(keyword.value for keyword in call.keywords)]
            return [ast.Expr(self.visit(one)) for one in values if not is_pure(one)] or None
        return self.generic_visit(node)

    def visit_Call(self, node: Any) -> ast.AST:  # noqa: N802
        """Drop help texts, bounds, parts of messages and what progress bars say."""
        if MESSAGES.get(called(node), len(node.args)) < len(node.args):
            node.args[MESSAGES[called(node)]] = ast.Constant("")
        ignored = IGNORED.get(called(node))
        if ignored:
            kept = DESCRIPTIONS | ({"unit"} if called(node) == "Metric" else set())
            shown: list[ast.AST] = [one for one in node.keywords if one.arg in kept & ignored]
            if called(node) == "Metric" and len(node.args) <= 4:  # key, label, definition, formula
                shown, node.args = [*shown, *node.args[1:]], node.args[:1]
            texts = [ast.dump(one) for one in shown]
            node.texts = getattr(node, "texts", "") + "".join(texts)
            node.keywords = [one for one in node.keywords if one.arg not in ignored]
            if called(node) in ("parser", "ArgumentParser"):
                node.args = []  # the description
        return self.generic_visit(node)
