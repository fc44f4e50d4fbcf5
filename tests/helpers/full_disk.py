"""A disk that fills up, without a mount: a limit on the size of files, of this process alone."""

import contextlib
import resource
import signal


@contextlib.contextmanager
def full_disk(largest):
    """Let no file grow beyond `largest` bytes while the block runs."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
