"""Check at run time that a plugin offers what a protocol (PEP 544) asks for.

`isinstance` with a runtime-checkable protocol says only yes or no, and nothing of parameters.
"""

import inspect
from typing import Any, Protocol, get_type_hints

from pydantic import TypeAdapter, ValidationError

from prunecal.core.errors import PrunecalError, brief


def refuse_unlike(what: str, plugin: object, protocol: type) -> None:
    """Refuse a plugin that lacks an attribute or a function of a protocol.

    Attributes are compared with the type that the protocol annotates, functions by the names of
    their parameters: those of the protocol, in its order; further ones need defaults. An attribute
    that has a value in the protocol may be missing: that is its default.

    Args:
        what: names the plugin in the message.
        plugin: a module, a class or an object.
        protocol: a `typing.Protocol`.

    Raises:
        PrunecalError: the first thing that is missing or differs.
    """
    for name, kind in get_type_hints(protocol).items():
        form = inspect.formatannotation(kind)
        if not hasattr(plugin, name):
            if hasattr(protocol, name):
                continue  # the protocol's value is the default
            raise PrunecalError(f"{what} lacks {name}; define it as {form}")
        value = getattr(plugin, name)
        try:
            TypeAdapter(kind).validate_python(value, strict=True)
        except ValidationError as error:
            raise PrunecalError(f"{what} has {name} = {brief(value)}; make it {form}") from error
    for name, member in _members(protocol).items():
        if isinstance(member, property):
            # on a class, what its objects have is not known before one exists
            if not inspect.isclass(plugin) and not hasattr(plugin, name):
                raise PrunecalError(f"{what} lacks {name}; define it")
            continue
        parameters = [*inspect.signature(member).parameters][1:]  # without self
        call = f"{name}({', '.join(parameters)})"
        function = getattr(plugin, name, None)
        if not callable(function):
            raise PrunecalError(f"{what} lacks {call}; define it")
        given = _parameters(function, bound=not inspect.isclass(plugin))
        extra = [one.name for one in given[len(parameters) :] if one.default is one.empty]
        if [one.name for one in given[: len(parameters)]] != parameters or extra:
            names = ", ".join(one.name for one in given)
            raise PrunecalError(f"{what} has {name}({names}); define it as {call}")


def _members(protocol: type) -> dict[str, Any]:
    """Return the functions and properties of a protocol and of the protocols it extends."""
    return {
        name: member
        for base in reversed(protocol.__mro__)
        if base not in (object, Protocol) and getattr(base, "_is_protocol", False)
        for name, member in vars(base).items()
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))
    }


def _parameters(function: Any, *, bound: bool) -> list[inspect.Parameter]:
    parameters = [*inspect.signature(function).parameters.values()]
    return parameters if bound else parameters[1:]
