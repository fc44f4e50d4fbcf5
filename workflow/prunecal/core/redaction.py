"""Redact what must never be written: tokens, passwords in addresses, the home folder."""

import os
import re
from pathlib import Path

TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
SHORTEST = 8  # characters; a shorter value of those is no token, and may be part of any word
HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")  # also one that the Hub's client read from a file
# The rest of an address: no white space, and a quote only where no text could end with it; bounded,
# so that a long text takes no long time.
REST = r"""(?:\\.|[^\s"'<>\\]|["'](?![\s,;:)\]}]|$)){0,1000}"""
LOGINS = re.compile(
    # name:password, which may hold @ and /, is taken up to the last @; a bare name up to a slash
    rf"(?:(?<=://)|(?<=:\\/\\/))(?:[^\s/@:\"'<>]*:{REST}|[^/@\s\"'<>]+)(?=@)"
    r"|(?<=%3A%2F%2F)[^\s&\"'<>]{1,2000}?(?=%40)"  # the same, percent-encoded
    r"|(?<![\w@:/.%+-])[\w.%+-]+:[^\s:/@\"'<>]+(?=@[\w.-]+)",  # without a scheme, as in proxies
    re.IGNORECASE,
)
# Values of a query's secrets; of the plain words for them also elsewhere.
SECRETS = re.compile(
    r"(?<![?&;])(?<![\w-])((?:--)?(?:(?:hf_?)?token|secret|passwd|password|api[_-]?key"
    r"|access[_-]?(?:token|key)"
    r"|(?-i:[A-Z][A-Z0-9_]*_(?:TOKEN|SECRET|PASSWORD|KEY))(?!=\d{1,7}(?!\w))))"  # MAX_NEW_TOKEN=16
    r"=(?!\*\*\*)[^\s&;#\"'<>]+"
    r"|(?<=[?&;])([\w.-]*(?:token|key|secret|pass|pwd|auth|sig|credential|session|jwt)[\w.-]*|code)"
    r"=(?!\*\*\*)[^\s&;#\"'<>]+",
    re.IGNORECASE,
)
QUOTED = re.compile(  # in JSON and in Python's dictionaries, up to the same quote
    r"""(["'](?:(?:(?:hf|auth|access|api|private)[_-])?(?:secret|password)"""
    r"""|(?:hf|auth|access|api|private)[_-]token)["']\s*:\s*)(["'])(?:\\.|(?!\2)[^\\])+"""
    # a short text under the bare word is one of a model's tokens
    r"""|(["']token["']\s*:\s*)(["'])[\w.~+/=-]{16,}""",
    re.IGNORECASE,
)
HEADERS = re.compile(
    r"(\bauthorization\W{1,5}(?:bearer|basic|token)\s+|\bBearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE
)
BEFORE = r"(?:(?<![\w.-])|(?<=\\[nrt]))"  # a path begins here; libraries show line ends as \n


def hidden(text: str) -> str:
    """Return a text with tokens and logins as `***`, and the user's home folder as `~`."""
    for name in TOKENS:
        token = os.environ.get(name, "").strip()
        if len(token) >= SHORTEST:
            text = text.replace(token, "***")
    text = LOGINS.sub("***", HUB_TOKEN.sub("***", text))
    text = SECRETS.sub(lambda match: f"{match[1] or match[2]}=***", text)
    text = QUOTED.sub(lambda match: f"{match[1] or match[3]}{match[2] or match[4]}***", text)
    text = HEADERS.sub(r"\1***", text)
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
    """List the home folder's path, as configured and resolved, unless it is a root."""
    try:
        home = Path.home()
    except RuntimeError:  # this user has none
        return []
    return [str(path) for path in dict.fromkeys((home, home.resolve())) if len(path.parts) > 1]
