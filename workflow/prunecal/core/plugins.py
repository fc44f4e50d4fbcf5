"""Strategies, model families, data sets and recipes are found by the name of their file.

One file in one of these folders is one plugin; `scope.py` is "scope", `fastv_two_pass.py` is
"fastv-two-pass"; a leading underscore marks a helper. Nothing else has to be edited to add one.
"""

import importlib
import pkgutil
from types import ModuleType

from prunecal.core.errors import PrunecalError, brief, nearest

KINDS = {
    "strategies": "strategy",
    "datasets": "data set loader",
    "models": "model family",
    "recipes": "recipe",
}


def names(folder: str) -> list[str]:
    """List the plugins in `prunecal/<folder>`, sorted, without importing them."""
    package = importlib.import_module(f"prunecal.{folder}")
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name.replace("_", "-") for name in found if not name.startswith("_"))


def module_name(folder: str, name: str) -> str:
    """Return the dotted module of a plugin, for example `prunecal.strategies.fastv_two_pass`.

    Raises:
        PrunecalError: no plugin has that name; the message offers the nearest one.
    """
    known = names(folder)
    if name not in known:
        raise PrunecalError(
            f"the {KINDS[folder]} {brief(name)} is unknown{nearest(name, known)}; "
            f"known are {', '.join(known)}"
        )
    return f"prunecal.{folder}.{name.replace('-', '_')}"


def load(folder: str, name: str) -> ModuleType:
    """Import a plugin by its name.

    Raises:
        PrunecalError: no plugin has that name; the message offers the nearest one.
    """
    return importlib.import_module(module_name(folder, name))
