"""Fingerprints of code: a digest that changes when, and only when, a stage's numbers may.

Followed from a stage's `__main__` (`caching.reach`) are the functions, classes, methods and
constants that it names, in this package and in the plugins that it loads, each reduced to what can
change a number (`caching.normal_form`); and constants that nothing names, of which nobody can tell
what reads them. Plumbing rooms are not followed. What no digest sees is covered by hand: a
module-level `VERSION` counts for every stage that imports its module, `storage.VERSION` for all.
docs/caching.md says what that means for an edit.

Nothing heavy is imported: the Snakefile needs this on every start.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import sys
from typing import TYPE_CHECKING

from prunecal.caching.code_files import ROOT, declared_plugins
from prunecal.caching.known_digests import KnownDigests
from prunecal.caching.reach import Reach
from prunecal.caching.source_units import PLUGINS

if TYPE_CHECKING:
    from pathlib import Path

PAGE, NUMBERS = "page", "numbers"  # kinds of digests
_known: list[KnownDigests] = []  # at most one: of this process


def remember(path: Path) -> None:
    """Keep the digests that this process derives in a file, and take those that it holds.

    The file is written once, when the process ends.
    """
    if not any(map(declared_plugins, PLUGINS)):  # their code lies elsewhere, and may change
        _known[:] = [KnownDigests(path, ROOT / __name__.partition(".")[0])]
        atexit.register(_known[0].keep)


def source_digest(*modules: str) -> str:
    """Fingerprint the code by which a stage computes numbers.

    Args:
        *modules: dotted names: the stage, and the plugins that this run of it loads. Of a folder of
            plugins of which none is named, all count; of a mapping of which entries are named, such
            as "prunecal.study.prompts.TEMPLATES[qwen_vl-hf]", these alone.

    Returns:
        16 hexadecimal digits.

    Raises:
        ModuleNotFoundError: a module is not part of the project.
    """
    return _digest(tuple(sorted(modules)), texts=False)


def page_digest(*modules: str) -> str:
    """Fingerprint the code by which a stage draws or writes: labels and descriptions count too.

    Otherwise as `source_digest`.
    """
    return _digest(tuple(sorted(modules)), texts=True)


def code_record(*modules: str, page: bool = False) -> str:
    """Return a digest together with what it is of, which rules give their jobs to write down.

    Args:
        *modules: as for `source_digest`.
        page: whether it is the digest of a page or a figure.
    """
    digest = page_digest(*modules) if page else source_digest(*modules)
    return " ".join([digest, PAGE if page else NUMBERS, *modules])


def is_outdated(record: str) -> bool:
    """Tell whether the code of a `code_record` has changed since."""
    digest, kind, *modules = record.split()
    try:
        return code_record(*modules, page=kind == PAGE).split()[0] != digest
    except ModuleNotFoundError:  # the code is gone
        return True


@functools.cache
def _digest(modules: tuple[str, ...], *, texts: bool) -> str:
    def derive() -> str:
        lines = sorted(Reach(modules, texts=texts).lines)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    kind = PAGE if texts else NUMBERS
    return _known[0].digest(" ".join([kind, *modules]), derive) if _known else derive()


if __name__ == "__main__":
    reached = Reach(tuple(sys.argv[1:]), texts=False).lines
    for piece in sorted({line.rsplit(" ", 2)[0] for line in reached}):
        print(piece)  # noqa: T201
