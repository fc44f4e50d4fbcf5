"""The one kind of error that a user is meant to see."""


class PrunecalError(Exception):
    """Something outside the code is wrong: an input, a setting, the network, the machine.

    The message is one readable sentence that names the input (file, key, row) and the remedy.
    """


def nearest(name: str, known: list[str]) -> str:
    """Return " (did you mean X?)" for the known name closest to `name`, or an empty string."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
