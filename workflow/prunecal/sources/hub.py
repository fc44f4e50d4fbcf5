"""Repositories of the Hugging Face Hub, fetched at a pinned revision and checked byte for byte.

The environment decides where from and where to, as everywhere with the Hub: HF_ENDPOINT, HF_HOME,
HF_HUB_CACHE, HF_TOKEN, HF_HUB_OFFLINE.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from prunecal.core import disk_errors
from prunecal.core.cli import log
from prunecal.core.errors import PrunecalError
from prunecal.sources import safe_paths
from prunecal.storage.checksums import file_digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from huggingface_hub.hf_api import RepoFile

ATTEMPTS = 3
Kind = Literal["model", "dataset"]


def fetch(repo: str, revision: str, kind: Kind, patterns: list[str] | None = None) -> Path:
    """Download what is not in the cache yet and return the folder that holds the repository.

    Every file is held against the size and checksum that the Hub lists for it; one that differs
    is deleted and fetched again. Without the Hub a complete cached copy will do, held against the
    checksums under which the cache stored its files.

    Args:
        repo: for example "llava-hf/llava-1.5-7b-hf".
        revision: commit hash, or a branch or tag.
        kind: "model" or "dataset".
        patterns: glob patterns of the files to fetch; all by default.

    Raises:
        PrunecalError: the Hub cannot be reached, has no such repository or revision, has no file
            that fits or one whose name leads out of its folder, or gave a damaged file three times;
            or the cache's disk is full.
    """
    listing = _listing(repo, revision, kind, patterns)
    if listing is not None and not listing:
        raise PrunecalError(
            f"{kind} {repo} at revision {revision} has no file that fits {patterns}; "
            f"{_remedy('correct `repo:` and `revision:`')}"
        )
    for _ in range(ATTEMPTS):
        try:
            folder = _snapshot(repo, revision, kind, patterns, offline=listing is None)
        except (*_transient_errors(), ValueError) as error:  # the last for names that lead out
            fault = _describe(error)
        else:
            damaged = _damaged(folder, listing)
            if not damaged:
                return folder
            fault = f"{damaged[0]} differs from its checksum"
            for name in damaged:
                blob = (folder / name).resolve()
                if folder.resolve().parents[1] in blob.parents:  # in the cache of this repository
                    blob.unlink(missing_ok=True)
                (folder / name).unlink(missing_ok=True)  # the link to it
        if listing is None:
            raise PrunecalError(
                f"the cached copy of {kind} {repo} at revision {revision} is damaged ({fault}) and "
                f"the Hub cannot be reached; {_remedy('go online to fetch it again')}"
            )
        log.warning("%s at revision %s: %s; fetching it again", repo, revision, fault)
    raise PrunecalError(
        f"{kind} {repo} at revision {revision} did not arrive whole in {ATTEMPTS} attempts: "
        f"{fault}; {_remedy('try again later')}"
    )


def locate(repo: str, revision: str, kind: Kind, patterns: list[str] | None = None) -> Path:
    """Return the folder of a repository that `fetch` fetched before, without network.

    Raises:
        PrunecalError: it is not, or not whole, in the cache.
    """
    try:
        return _snapshot(repo, revision, kind, patterns, offline=True)
    except FileNotFoundError as error:
        raise PrunecalError(
            f"{kind} {repo} at revision {revision} is not in the Hub's cache on this machine; run "
            f"its stage again to fetch it, with the same HF_HOME"
        ) from error


def _snapshot(
    repo: str, revision: str, kind: Kind, patterns: list[str] | None, *, offline: bool
) -> Path:
    from huggingface_hub import constants, snapshot_download

    _speak_through_our_log()
    with disk_errors.writing(Path(constants.HF_HUB_CACHE)), _no_endless_resume():
        folder = snapshot_download(
            repo,
            repo_type=kind,
            revision=revision,
            allow_patterns=patterns,
            local_files_only=offline,
        )
    return Path(folder)


def _listing(
    repo: str, revision: str, kind: Kind, patterns: list[str] | None
) -> dict[str, RepoFile] | None:
    """Ask the Hub for the files of a repository; None if it is out of reach but they are cached."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.hf_api import RepoFile
    from huggingface_hub.utils import HFValidationError, filter_repo_objects

    _speak_through_our_log()
    try:
        tree = HfApi().list_repo_tree(repo, repo_type=kind, revision=revision, recursive=True)
        files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
        _refuse_ways_out(f"{kind} {repo} at revision {revision}", files)
        return {name: files[name] for name in filter_repo_objects(files, allow_patterns=patterns)}
    except HFValidationError as error:
        raise PrunecalError(f"`repo: {repo}`: {error}") from error
    except (*_transient_errors(), ValueError) as error:
        status = _status(error)
        if status in (401, 403, 404):
            remedy = _remedy("correct `repo:` and `revision:` (HF_TOKEN opens gated ones)")
            raise PrunecalError(
                f"{constants.ENDPOINT} gives no {kind} {repo} at revision {revision} "
                f"(HTTP {status}); {remedy}"
            ) from error
        with contextlib.suppress(FileNotFoundError):
            folder = _snapshot(repo, revision, kind, patterns, offline=True)
            log.info("the Hub cannot be reached; taking %s from the cache %s", repo, folder)
            return None
        raise PrunecalError(
            f"{kind} {repo} at revision {revision} cannot be fetched: {constants.ENDPOINT} cannot "
            f"be reached ({_describe(error)}); {_remedy('check the network and HF_ENDPOINT')}"
        ) from error


def _refuse_ways_out(where: str, names: Iterable[str]) -> None:
    for name in names:
        if not safe_paths.is_inside(name):
            raise PrunecalError(
                f"{where} lists the file {name!r}, whose name leads out of its folder; nothing was "
                f"fetched: use another repository or mirror"
            )


def _speak_through_our_log() -> None:
    """Let what the Hub's client says go where ours goes: its addresses may hold a login."""
    logging.getLogger("huggingface_hub").handlers = log.handlers


def _remedy(first: str) -> str:
    return f"{first}, or put the files in a local folder and give it as `path:` instead of `repo:`"


def _damaged(folder: Path, listing: Mapping[str, RepoFile] | None) -> list[str]:
    """Return the names of the files that are missing, cut off or altered."""
    found = (path for path in folder.rglob("*") if path.is_file())
    names = listing or [path.relative_to(folder).as_posix() for path in found]
    return [name for name in sorted(names) if not _whole(folder / name, (listing or {}).get(name))]


def _whole(path: Path, entry: RepoFile | None) -> bool:
    """Tell whether a file is what the Hub lists or, unlisted, what the cache's blob is named for.

    Both name large files by their SHA-256 and small ones by git's SHA-1 over a header and content.
    """
    if not path.is_file():
        return False
    size = path.stat().st_size
    expected = path.resolve().name
    if entry is not None:
        if size != entry.size:
            return False
        expected = entry.lfs.sha256 if entry.lfs else entry.blob_id
    if re.fullmatch("[0-9a-f]{64}", expected):
        return file_digest(path) == expected
    if re.fullmatch("[0-9a-f]{40}", expected):
        with path.open("rb") as file:
            header = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
            return hashlib.file_digest(file, lambda: header).hexdigest() == expected
    return True  # a mirror that names files otherwise tells no checksum


def _transient_errors() -> tuple[type[Exception], ...]:
    from huggingface_hub.errors import HTTPError  # of the HTTP client that this version uses

    return OSError, HTTPError, RuntimeError  # the last from hf_xet


def _status(error: BaseException | None) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _describe(error: Exception) -> str:
    for fault in (error, error.__cause__):
        if (status := _status(fault)) is not None:
            return f"HTTP {status} for {fault.response.url.path}"
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextlib.contextmanager
def _no_endless_resume() -> Iterator[None]:
    """Give up on a file whose download starts again and again without getting further.

    huggingface_hub counts its retries from zero after every byte that arrives, so a server that
    always cuts a file at the same place would be asked for ever.
    """
    from huggingface_hub import get_session

    starts: dict[str, list[int]] = {}

    def watch(request) -> None:  # noqa: ANN001  the HTTP client's own type
        if request.method == "GET" and "/resolve/" in request.url.path:
            begin = re.match(r"bytes=(\d+)-", request.headers.get("range", "bytes=0-"))
            seen = starts.setdefault(request.url.path, [])
            seen.append(int(begin[1]) if begin else 0)
            if len(seen) > ATTEMPTS and seen[-1] <= seen[-ATTEMPTS]:
                name = request.url.path.rpartition("/")[2]
                raise OSError(f"the download of {name} keeps breaking off at one place")

    hooks = get_session().event_hooks["request"]
    hooks.append(watch)
    try:
        yield
    finally:
        hooks.remove(watch)
