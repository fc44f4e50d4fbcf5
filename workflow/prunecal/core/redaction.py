"""What is never written down: tokens, passwords in addresses, and where the user's home lies."""

import os
import re
from pathlib import Path

TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
SHORTEST = 8  # characters; a shorter value of those is no token, and may be part of any word
HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")  # also one that the Hub's client found in a file
LOGIN = re.compile(r"(?<=://)[^/@\s]+(?=@)")
BEFORE = r"(?:(?<![\w.-])|(?<=\\[nrt]))"  # a path begins here; libraries show line ends as \n


def hidden(text: str) -> str:
    """Return a text with tokens and logins as `***`, and the user's home folder as `~`."""
    for name in TOKENS:
        token = os.environ.get(name, "").strip()
        if len(token) >= SHORTEST:
            text = text.replace(token, "***")
    text = LOGIN.sub("***", HUB_TOKEN.sub("***", text))
    for home in _homes():
        text = re.sub(rf"{BEFORE}{re.escape(home)}(?![\w.-])", "~", text)
    return text


def expanded(path: Path) -> Path:
    """Return a path with a leading `~` replaced by the home folder.

    Raises:
        ValueError: it names a user who has none here.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path}: {error}; give the whole path") from error


def _homes() -> list[str]:
    """List the home folder's path, as it is given and as it is; none that is a root."""
    try:
        home = Path.home()
    except RuntimeError:  # this user has none
        return []
    return [str(path) for path in dict.fromkeys((home, home.resolve())) if len(path.parts) > 1]
