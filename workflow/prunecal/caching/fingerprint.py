"""Fingerprints of code and of files, by which Snakemake decides what to run again.

Standard library only: the Snakefile imports this on every start.
"""

import ast
import functools
import hashlib
import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # the folder that is on the import path


def source_digest(*modules: str) -> str:
    """Fingerprint the meaning of modules and of all project modules that they import.

    Syntax trees are hashed, docstrings left out, so a touched file, a comment or a reformat keeps
    the digest, while a change in any imported helper, however deep, changes it.

    Args:
        *modules: dotted names, for example "prunecal.rank".

    Returns:
        16 hexadecimal digits.

    Raises:
        ModuleNotFoundError: a module is not part of the project.
    """
    pending, seen = list(modules), set()
    while pending:
        module = pending.pop()
        if module not in seen:
            seen.add(module)
            pending += _parse(module)[1]
    text = "\n".join(f"{module} {_parse(module)[0]}" for module in sorted(seen))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _path(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


@functools.cache
def _parse(module: str) -> tuple[str, tuple[str, ...]]:
    """Return the hash of a module's syntax tree and the project modules that it imports."""
    path = _path(module)
    if path is None:
        raise ModuleNotFoundError(f"{module} is not a module below {ROOT}")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = {".".join(module.split(".")[:depth]) for depth in range(1, module.count(".") + 1)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            package = module if path.name == "__init__.py" else module.rpartition(".")[0]
            source = importlib.util.resolve_name(source, package)
            # `from prunecal.storage import files` names a module, `… .files import x` an object
            imports |= {f"{source}.{alias.name}" for alias in node.names} | {source}
        _drop_docstring(node)
    project = module.split(".")[0]
    ours = sorted(name for name in imports if name.split(".")[0] == project and _path(name))
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(ours)


def _drop_docstring(node: ast.AST) -> None:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
        node.body = node.body[1:] or [ast.Pass()]
