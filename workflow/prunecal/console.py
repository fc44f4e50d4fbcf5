"""How a stage speaks: one log file with everything, one readable line on the terminal."""

import argparse
import logging
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from prunecal.errors import PrunecalError

T = TypeVar("T")
log = logging.getLogger("prunecal")


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a stage's argument parser; every stage takes `--log FILE`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--log", type=Path, help="also write everything, tracebacks included, here")
    return parser


def run(main: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> None:
    """Run a stage and exit: 0, or 1 with one line on stderr and the traceback in the log.

    An exception that is no PrunecalError is a fault of the code: its traceback goes to both.
    """
    configure_logging(arguments.log)
    try:
        main(arguments)
    except PrunecalError as error:
        log.debug("traceback", exc_info=True)
        line = " ".join(str(error).splitlines())  # libraries' messages may hold several
        log.error("%s", line)  # noqa: TRY400  the traceback goes to the log file alone
        sys.exit(1)
    except Exception:
        log.exception("unexpected failure: please report it with this traceback")
        sys.exit(1)


def configure_logging(path: Path | None) -> None:
    """Send INFO and above to stderr, and everything, warnings too, to the file at `path`."""
    log.setLevel(logging.DEBUG)
    log.handlers.clear()
    terminal = logging.StreamHandler()
    terminal.setLevel(logging.INFO)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(terminal)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(path, mode="w", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(file)
    logging.captureWarnings(capture=True)
    logging.getLogger("py.warnings").handlers = log.handlers
    warnings.simplefilter("default")


def progress(items: Iterable[T], *, total: int, what: str, unit: str) -> Iterable[T]:
    """Iterate with a progress bar on a terminal, or a line now and then where there is none."""
    from tqdm import tqdm

    options: dict[str, Any] = {"mininterval": 0.5} if sys.stderr.isatty() else {"mininterval": 15}
    return tqdm(items, total=total, desc=what, unit=unit, dynamic_ncols=True, **options)
