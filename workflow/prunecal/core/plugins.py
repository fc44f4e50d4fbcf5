"""Find strategies, model families, data set loaders and recipes by name, and check what they offer.

One file in one of these folders is one plugin: `scope.py` is "scope", `fastv_two_pass.py` is
"fastv-two-pass"; a leading underscore marks a helper. Nothing else has to be edited to add one.

A plugin may also live outside this repository: an installed distribution names its module as an
entry point of the group `prunecal.<folder>`, for example in its pyproject.toml

    [project.entry-points."prunecal.strategies"]
    my-strategy = "my_package.my_strategy"

Every plugin is checked against the protocol of its kind when it is loaded. The protocols are in the
packages of the plugins, for example `prunecal.strategies`, whose function `protocol` picks one and
whose `refuse_contradictions` refuses what no protocol can say.
"""

import functools
import importlib
import pkgutil
import re
import sys
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from prunecal.core.errors import PrunecalError, brief, nearest
from prunecal.core.protocols import refuse_unlike

KINDS = {
    "strategies": "strategy",
    "datasets": "data set loader",
    "models": "model family",
    "recipes": "recipe",
}
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")  # names become parts of paths


def names(folder: str) -> list[str]:
    """List the plugins of a kind, sorted, without importing them.

    Raises:
        PrunecalError: an installed distribution declares a name that is taken or malformed.
    """
    return sorted(_modules(folder))


def module_name(folder: str, name: str) -> str:
    """Return the dotted module of a plugin, for example `prunecal.strategies.fastv_two_pass`.

    Raises:
        PrunecalError: no plugin has that name (the message offers the nearest one); or see `names`.
    """
    modules = _modules(folder)
    if name not in modules:
        raise PrunecalError(
            f"the {KINDS[folder]} {brief(name)} is unknown{nearest(name, list(modules))}; "
            f"known are {', '.join(sorted(modules))}"
        )
    return modules[name]


def load(folder: str, name: str) -> ModuleType:
    """Import a plugin by its name and check that it offers what its kind needs.

    Raises:
        PrunecalError: no plugin has that name, it cannot be imported, or it does not follow the
            protocol of its kind.
    """
    module = module_name(folder, name)
    try:
        plugin = importlib.import_module(module)
    except Exception as error:  # a plugin may hold anything
        own = module.partition(".")[0] == __name__.partition(".")[0]
        remedy = "correct that file" if own else "correct or reinstall its distribution"
        raise PrunecalError(
            f"the {KINDS[folder]} {name!r} cannot be imported from {module} "
            f"({type(error).__name__}: {error}); {remedy}"
        ) from error
    _check(folder, name, plugin)
    return plugin


def declared(folder: str, plugin: ModuleType, name: str) -> Any:
    """Return what a plugin declares under a name, or the default that its protocol gives."""
    protocol = importlib.import_module(f"prunecal.{folder}").protocol
    return getattr(plugin, name, getattr(protocol(plugin), name))


@functools.cache
def _check(folder: str, name: str, plugin: ModuleType) -> None:
    room = importlib.import_module(f"prunecal.{folder}")
    what = f"the {KINDS[folder]} {name!r} ({plugin.__file__})"
    refuse_unlike(what, plugin, room.protocol(plugin))
    if hasattr(room, "refuse_contradictions"):
        room.refuse_contradictions(plugin)


def _modules(folder: str) -> dict[str, str]:
    """Return the dotted module of each plugin of a kind by the plugin's name."""
    package = importlib.import_module(f"prunecal.{folder}")
    return _listed(folder, tuple(package.__path__), tuple(sys.path))


@functools.cache
def _listed(folder: str, inside: tuple[str, ...], outside: tuple[str, ...]) -> dict[str, str]:
    """List the modules in the folders `inside`, then those of distributions on the path."""
    group = f"prunecal.{folder}"
    modules = {
        module.name.replace("_", "-"): f"{group}.{module.name}"
        for module in pkgutil.iter_modules(inside)
        if not module.name.startswith("_")
    }
    for entry in sorted(_declared(outside).select(group=group)):
        source = f"the distribution {entry.dist.name!r} declares the {KINDS[folder]} {entry.name!r}"
        if not NAME.fullmatch(entry.name) or entry.attr:
            raise PrunecalError(
                f"{source} as {entry.value!r}; have it give a name of lower-case letters, digits "
                "and single hyphens, and a module"
            )
        if entry.name in modules:
            raise PrunecalError(
                f"{source}, a name that {modules[entry.name]} has; rename it there, or uninstall "
                f"{entry.dist.name}"
            )
        modules[entry.name] = entry.module
    return modules


@functools.cache
def _declared(path: tuple[str, ...]) -> Any:
    """Return the entry points of all distributions on the import path, read once for all kinds."""
    del path  # part of the key: another path may hold other distributions
    return entry_points()
