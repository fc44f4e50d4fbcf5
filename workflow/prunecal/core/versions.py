"""Which versions of libraries are installed, without importing them."""

import re
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path


def installed(library: str) -> str:
    """Return a library's version; that of torch with its build, for example 2.13.0+cu130.

    The metadata of torch's default wheel names no build; torch/version.py, where
    `torch.__version__` comes from, always does.
    """
    if library == "torch" and (spec := find_spec("torch")) and spec.origin:
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
        if line := re.search(r"^__version__ = ['\"](.+)['\"]$", text, flags=re.MULTILINE):
            return line[1]
    return metadata.version(library)
