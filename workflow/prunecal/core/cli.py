"""How a stage speaks: one log file with everything, one readable line on the terminal."""

import argparse
import contextlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from prunecal.core import disk_errors
from prunecal.core.errors import PrunecalError
from prunecal.core.redaction import hidden

ONE: dict[str, Any] = {"type": Path, "required": True}
SEVERAL = ONE | {"nargs": "+"}
COMMON = {  # arguments that several stages take
    "--study": ONE | {"help": "study.json"},
    "--metrics": ONE | {"help": "metrics.parquet"},
    "--comparisons": ONE | {"help": "comparisons.parquet"},
    "--predictions": SEVERAL | {"help": "predictions.parquet of all cells"},
    "--scores": SEVERAL | {"help": "score files of the study"},
    "--manifests": {"type": Path, "nargs": "*", "default": [], "help": "manifest.json of models"},
    "--rankings": {"type": Path, "nargs": "*", "default": [], "help": "of all strategies"},
    "--folder": ONE | {"help": "folder to write into"},
    "--level": {"type": float, "default": 0.95, "help": "of the intervals"},
}
UNEXPECTED = (
    "unexpected failure: if the traceback ends in a file of your own, correct it; else please "
    "report it with this traceback"
)
T = TypeVar("T")
log = logging.getLogger("prunecal")


def parser(description: str | None, *common: str) -> argparse.ArgumentParser:
    """Return a stage's argument parser: it takes `--log FILE` and those named of `COMMON`.

    An argument `@FILE` stands for the lines of that file: lists may be too long for a command.
    """
    parser = argparse.ArgumentParser(description=description, fromfile_prefix_chars="@")
    parser.add_argument("--log", type=Path, help="also write everything, tracebacks included, here")
    for name in common:
        parser.add_argument(name, **COMMON[name])
    return parser


def run(main: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> None:
    """Run a stage and exit: 0, or 1 with one line on stderr and the traceback in the log.

    A fault of the disk, whichever library met it, is told as a PrunecalError is. Any other
    exception is a fault of the code: its traceback goes to both.
    """
    try:
        configure_logging(arguments.log)
        main(arguments)
    except PrunecalError as error:
        _give_up(str(error))
    except Exception as error:
        found = disk_errors.fault(error)
        if found is None:
            log.exception(UNEXPECTED)
            sys.exit(1)
        _give_up(disk_errors.told(found))


def _give_up(sentence: str) -> NoReturn:
    log.debug("traceback", exc_info=True)
    line = " ".join(sentence.splitlines())  # libraries' messages may hold several
    log.error("%s", line)
    sys.exit(1)


class _Formatter(logging.Formatter):
    """Leaves tokens and the user's home folder out of whatever is logged, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        return hidden(super().format(record))


class _LogFile(logging.FileHandler):
    """A log file; if the disk is full, the stage continues without it, after one warning."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's own name
        error = sys.exception()
        if error is None or disk_errors.fault(error) is None:
            super().handleError(record)
            return
        log.removeHandler(self)
        with contextlib.suppress(OSError):  # what it still holds cannot be written either
            self.close()
        log.warning("the log %s cannot be written (%s); going on without", self.baseFilename, error)


def configure_logging(path: Path | None) -> None:
    """Send INFO and above to stderr, and everything, warnings too, to the file at `path`."""
    log.setLevel(logging.DEBUG)
    log.handlers.clear()
    terminal = logging.StreamHandler()
    terminal.setLevel(logging.INFO)
    terminal.setFormatter(_Formatter("%(message)s"))
    log.addHandler(terminal)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _LogFile(path, mode="w", encoding="utf-8")
        file.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(file)
    logging.captureWarnings(capture=True)
    logging.getLogger("py.warnings").handlers = log.handlers
    warnings.simplefilter("default")
    # transformers imports torchao if it is installed, which tells of kernels that no stage uses
    for library in ("torchao", "torch.utils._pytree"):
        logging.getLogger(library).setLevel(logging.ERROR)


def progress(items: Iterable[T], *, total: int, what: str, unit: str) -> Iterable[T]:
    """Iterate with a progress bar on a terminal, or a line now and then where there is none."""
    from tqdm import tqdm

    options: dict[str, Any] = {"mininterval": 0.5} if sys.stderr.isatty() else {"mininterval": 15}
    return tqdm(items, total=total, desc=what, unit=unit, dynamic_ncols=True, **options)
