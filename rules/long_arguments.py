"""Arguments of a job's command that may be too long for it: they go through a file.

Linux starts no program with a word of more than 128 kB, and a shell's command is one word.
"""

import hashlib
import os
import shlex
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(".snakemake", "arguments")
LONGEST = 40_000  # bytes of a list of arguments; a command may have two of them, and more


def words(arguments: Iterable[str]) -> str:
    """Return arguments as the words of a command, quoted, or `@` and the file that lists them.

    The parser of every stage reads such a file, one argument a line (`prunecal.core.cli.parser`).
    """
    arguments = list(map(str, arguments))
    text = shlex.join(arguments)
    if len(text.encode()) <= LONGEST:
        return text
    path = _spooled("\n".join(arguments))
    return shlex.quote(f"@{path}")


def printing(text: str) -> str:
    """Return the command that prints a text and ends its last line."""
    quoted = shlex.quote(text)
    if len(quoted.encode()) <= LONGEST:
        return f"printf '%s\\n' {quoted}"
    return f"cat {shlex.quote(str(_spooled(text)))}"


def _spooled(text: str) -> Path:
    """Write a text and a line end to a file that is named by its content, unless it is there."""
    content = f"{text}\n".encode()
    path = FOLDER / f"{hashlib.sha256(content).hexdigest()[:32]}.txt"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(f".{os.getpid()}")
        half.write_bytes(content)
        half.replace(path)
    return path
