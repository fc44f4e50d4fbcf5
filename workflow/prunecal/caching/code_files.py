"""Where code lies: the files of modules and plugins, and which of it is plumbing.

Nothing heavy is imported: the Snakefile needs this on every start.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections import Counter
from pathlib import Path

from prunecal.caching.source_units import PLUGINS
from prunecal.core import plugins

ROOT = Path(__file__).resolve().parents[2]  # the folder that is on the import path
PLUMBING = ("core", "storage", "caching", "sources.hub", "sources.safe_paths")
WORD = re.compile(r"[A-Za-z_]\w*")
CONSTANT = re.compile(r"^([A-Za-z_]\w*)(?::[^=\n]+)? *=(?!=)", re.MULTILINE)


def is_own(module: str) -> bool:
    """Tell whether a module is the project's, not that of a library or of another distribution."""
    return (ROOT / module.partition(".")[0]).exists()


@functools.cache
def code_path(module: str) -> Path | None:
    """Return a module's file: of this project or of a plugin's distribution."""
    base = ROOT.joinpath(*module.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    here = next((path for path in candidates if path.is_file()), None)
    if here or is_own(module):
        return here
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def is_used(root: str, name: str) -> bool:
    """Tell whether a constant's name stands anywhere but where constants of that name are set."""
    words, definitions = _words(root)
    return words[name] > definitions[name]


@functools.cache
def _words(root: str) -> tuple[Counter[str], Counter[str]]:
    """Count the words in all code of this project, and the names to which constants are set."""
    words, definitions = Counter[str](), Counter[str]()
    for path in (ROOT / root).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        words.update(WORD.findall(text))
        definitions.update(CONSTANT.findall(text))
    return words, definitions


def is_plumbing(module: str) -> bool:
    """Tell whether a module is trusted to change no number."""
    inside = module.partition(".")[2]
    return any(f"{inside}.".startswith(f"{room}.") for room in PLUMBING)


def plugin_folder(module: str) -> str | None:
    """Return the folder of which a module is a plugin, even one of another distribution."""
    parts = module.split(".")
    if is_own(module):
        return parts[1] if len(parts) == 3 and parts[1] in PLUGINS else None
    return next((folder for folder in PLUGINS if module in declared_plugins(folder)), None)


def every_plugin(root: str, folder: str) -> list[str]:
    """List the modules of all plugins of a folder, of other distributions too."""
    paths = (ROOT / root / folder).glob("[!_]*")
    names = {path.stem for path in paths if path.suffix == ".py" or (path / "__init__.py").exists()}
    return [*(f"{root}.{folder}.{name}" for name in sorted(names)), *declared_plugins(folder)]


@functools.cache
def declared_plugins(folder: str) -> list[str]:
    """List the modules of the plugins that other distributions declare."""
    modules = [plugins.module_name(folder, name) for name in plugins.names(folder)]
    return [module for module in modules if not module.startswith(f"prunecal.{folder}.")]


@functools.cache
def files_beside(folder: Path) -> dict[str, list[Path]]:
    """Return the files beside the code, by their own name and by that of their folder."""
    files: dict[str, list[Path]] = {}
    for path in folder.iterdir():
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            files[path.name] = [path]
        elif path.is_dir() and not (path / "__init__.py").exists():
            files[path.name] = [one for one in sorted(path.rglob("*")) if one.is_file()]
    return files
