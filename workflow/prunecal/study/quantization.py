"""Which library quantizes a model, and whether it is installed; light, for the Snakefile."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

BITSANDBYTES = "bitsandbytes-"
INSTALL = {  # what to type where a library is missing
    "torchao": "pip install 'prunecal[quantization]'",
    "bitsandbytes": "pip install bitsandbytes",
}


def library(settings: Mapping[str, Any]) -> str | None:
    """Return the library that quantizes a model with these settings; None if none does.

    Args:
        settings: of the model, see `Model.run_settings`.
    """
    scheme = settings.get("quantization")
    if scheme is None:
        return None
    return "bitsandbytes" if scheme.startswith(BITSANDBYTES) else "torchao"


def missing(settings: Mapping[str, Any]) -> str:
    """Say that the library which quantizes a model is not installed; empty if none is missing."""
    needed = library(settings)
    if needed is None or find_spec(needed) is not None:
        return ""
    return (
        f"`quantization: {settings['quantization']}` needs {needed}, which is not installed; run "
        f"`{INSTALL[needed]}`"
    )
