"""The start of every job's shell command: which Python and which code it runs."""

import shlex
from os import pathsep


def prefix(code: str, python_folder: str | None) -> str:
    """Return what precedes every shell command, with braces doubled as Snakemake wants them.

    Jobs run the code of this checkout, whatever is installed, set in PYTHONPATH or lies in the
    working directory (which PYTHONSAFEPATH keeps off Python's search path).

    Args:
        code: folder that holds the package, relative to where jobs run.
        python_folder: of the Python that jobs run; None if a container brings its own.

    Raises:
        ValueError: the code's path cannot be given to jobs.
    """
    for character in (pathsep, "{", "}"):  # of PYTHONPATH, of Snakemake's wildcards
        if character in code:
            raise ValueError(
                f"jobs cannot use the code in {code!r}, because its path holds {character!r}; move "
                "this checkout, or run snakemake inside it without --directory"
            )
    path = f"PATH={shlex.quote(python_folder)}:$PATH " if python_folder else ""
    code = f"PYTHONPATH={shlex.quote(code)}${{PYTHONPATH:+:$PYTHONPATH}} PYTHONSAFEPATH=1"
    return f"set -euo pipefail; export {path}{code}; ".replace("{", "{{").replace("}", "}}")
