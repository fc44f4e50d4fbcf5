"""What the Hub's client raises, and the sentence that a user is told."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunecal.sources.hub import Repository


def error_types() -> tuple[type[Exception], ...]:
    """Return what the client raises when a repository cannot be had."""
    from huggingface_hub.errors import HTTPError  # of the HTTP client that this version uses

    # RuntimeError is of hf_xet, ValueError of paths that escape the cache's folder
    return OSError, HTTPError, RuntimeError, ValueError


def explained(error: Exception, source: Repository) -> str | None:
    """Return what to do about an error, or None if another attempt may help."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    status = _status(error) or _status(error.__cause__)
    if isinstance(error, HFValidationError):
        return f"`repo: {source.name}`: {error}"
    if status == 404:
        remedy = remedy_or_local_folder("correct `repo:` and `revision:`")
        return f"{constants.ENDPOINT} has no {source} (HTTP 404); {remedy}"
    if status in (401, 403):
        remedy = remedy_or_local_folder(
            "correct `repo:`, or set HF_TOKEN to a token that may read it"
        )
        return f"{constants.ENDPOINT} denies access to {source} (HTTP {status}); {remedy}"
    if status == 429:
        remedy = remedy_or_local_folder("wait some minutes, or set HF_TOKEN, and run again")
        return f"{constants.ENDPOINT} refuses more requests for {source} (HTTP 429); {remedy}"
    if re.match("Invalid (filename|pointer path)", str(error)):  # path traversal
        return f"{source}: {describe(error)}; use another repository or mirror"
    if isinstance(error, LocalEntryNotFoundError) and constants.HF_HUB_OFFLINE:
        remedy = remedy_or_local_folder("unset HF_HUB_OFFLINE to fetch it")
        return f"{source} is not in the Hub's cache{missing_files(error)}; {remedy}"
    if isinstance(error, LocalEntryNotFoundError | ValueError):  # or no JSON: a captive portal
        remedy = remedy_or_local_folder("check the network and HF_ENDPOINT")
        return (
            f"{source} cannot be fetched{missing_files(error)}: {constants.ENDPOINT} cannot be "
            f"reached ({describe(error)}); {remedy}"
        )
    return None


def missing_files(error: Exception) -> str:
    """Return which files a cached copy lacks, in brackets, if the library says so."""
    names = re.search(r"file\(s\) are missing \(([^)]*)\)", str(error))
    return f" (it lacks {names[1]})" if names else ""


def remedy_or_local_folder(first: str) -> str:
    """Return a remedy followed by the one that always works."""
    return f"{first}, or put the files in a local folder and give it as `path:` instead of `repo:`"


def _status(error: BaseException | None) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def describe(error: Exception) -> str:
    """Return an error's HTTP status and address, else its first line."""
    for fault in (error, error.__cause__):
        if (status := _status(fault)) is not None:
            return f"HTTP {status} for {fault.response.url.path}"
    return next(iter(str(error).splitlines()), type(error).__name__)
