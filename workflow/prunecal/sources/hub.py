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
from typing import TYPE_CHECKING, Literal, NamedTuple

from prunecal.core import disk_errors
from prunecal.core.cli import log
from prunecal.core.errors import PrunecalError
from prunecal.sources.hub_errors import (
    describe,
    error_types,
    explained,
    missing_files,
    remedy_or_local_folder,
)
from prunecal.storage.checksums import file_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from huggingface_hub.hf_api import RepoFile

ATTEMPTS = 3
Kind = Literal["model", "dataset"]


class Repository(NamedTuple):
    """A repository of the Hub at a revision, and glob patterns of its files (all by default)."""

    name: str
    revision: str
    kind: Kind
    patterns: list[str] | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.name} at revision {self.revision}"


def fetch(
    repo: str,
    revision: str,
    kind: Kind,
    patterns: list[str] | None = None,
    digest: Callable[[Path], str] = file_digest,
) -> Path:
    """Download the files that are not in the cache and return the folder of the repository.

    Every file is checked against the checksum listed by the Hub; a file that differs is deleted and
    fetched again. Without access to the Hub a complete cached copy is used, checked against the
    checksums under which the cache stored its files.

    Args:
        repo: for example "llava-hf/llava-1.5-7b-hf".
        revision: commit hash, or a branch or tag.
        kind: "model" or "dataset".
        patterns: glob patterns of the files to fetch; all by default.
        digest: returns a file's SHA-256.

    Raises:
        PrunecalError: the Hub cannot be reached, has no such repository or revision, has no file
            that fits or one whose path escapes the folder, or sent a damaged file three times;
            or the cache's disk is full.
    """
    from huggingface_hub import constants

    source = Repository(repo, revision, kind, patterns)
    for _ in range(ATTEMPTS):
        try:
            folder = _snapshot(source, offline=constants.HF_HUB_OFFLINE)
            damaged, online = _damaged(folder, source, digest)
        except error_types() as error:
            if sentence := explained(error, source):
                raise PrunecalError(sentence) from error
            fault = describe(error)
        else:
            if not damaged:
                return folder
            fault = f"{damaged[0].name} differs from its checksum"
            for path in damaged:
                blob = path.resolve()
                if folder.resolve().parents[1] in blob.parents:  # in the cache of this repository
                    blob.unlink(missing_ok=True)
                path.unlink(missing_ok=True)  # the link to it
            if not online:
                raise PrunecalError(
                    f"the cached copy of {source} is damaged ({fault}) and the Hub cannot be "
                    f"reached; {remedy_or_local_folder('go online to fetch it again')}"
                )
        log.warning("%s: %s; fetching it again", source, fault)
    raise PrunecalError(
        f"{source} did not arrive whole in {ATTEMPTS} attempts: {fault}; "
        f"{remedy_or_local_folder('try again later')}"
    )


def locate(repo: str, revision: str, kind: Kind, patterns: list[str] | None = None) -> Path:
    """Return the folder of a repository that `fetch` fetched before, without network.

    Raises:
        PrunecalError: it is not, or not whole, in the cache.
    """
    source = Repository(repo, revision, kind, patterns)
    try:
        return _snapshot(source, offline=True)
    except FileNotFoundError as error:
        online = "unset HF_HUB_OFFLINE and " if is_offline() else ""
        raise PrunecalError(
            f"{source} is not in the Hub's cache on this machine{missing_files(error)}; "
            f"{online}run `snakemake --cores 1 prefetch` to fetch it, with the same HF_HOME"
        ) from error


def _snapshot(source: Repository, *, offline: bool) -> Path:
    from huggingface_hub import constants, snapshot_download

    logging.getLogger("huggingface_hub").handlers = log.handlers  # an address may hold a login
    with disk_errors.writing(Path(constants.HF_HUB_CACHE)), _no_endless_resume():
        folder = snapshot_download(
            source.name,
            repo_type=source.kind,
            revision=source.revision,
            allow_patterns=source.patterns,
            local_files_only=offline,
        )
    if not _files(Path(folder), source):
        raise PrunecalError(
            f"{source} has no file that fits {source.patterns}; "
            f"{remedy_or_local_folder('correct `repo:` and `revision:`')}"
        )
    return Path(folder)


def _files(folder: Path, source: Repository) -> list[Path]:
    from huggingface_hub.utils import filter_repo_objects

    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return [folder / name for name in filter_repo_objects(names, allow_patterns=source.patterns)]


def sizes(
    repo: str, revision: str, kind: Kind, patterns: list[str] | None = None
) -> dict[str, int]:
    """Return the bytes of each file that `fetch` would download, without downloading any.

    Raises:
        PrunecalError: the Hub cannot be reached, or has no such repository or revision.
    """
    from huggingface_hub.utils import filter_repo_objects

    source = Repository(repo, revision, kind, patterns)
    try:
        listed = {file.path: file.size for file in _listing(source)}
    except error_types() as error:
        remedy = remedy_or_local_folder(
            "check the network and HF_ENDPOINT, and unset HF_HUB_OFFLINE"
        )
        sentence = f"{source} cannot be looked up ({describe(error)}); {remedy}"
        raise PrunecalError(explained(error, source) or sentence) from error
    names = filter_repo_objects(list(listed), allow_patterns=source.patterns)
    return {name: listed[name] for name in names}


def cached_sizes(
    repo: str, revision: str, kind: Kind, patterns: list[str] | None = None
) -> dict[str, int]:
    """Return the bytes of each file of a repository that the cache holds whole.

    Raises:
        PrunecalError: as `locate`.
    """
    folder = locate(repo, revision, kind, patterns)
    paths = _files(folder, Repository(repo, revision, kind, patterns))
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}


def is_offline() -> bool:
    """Tell whether the environment forbids asking the Hub."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def cache_folder() -> Path:
    """Return where downloads go."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _listing(source: Repository) -> list[RepoFile]:
    """Ask the Hub for the files of a repository."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    tree = HfApi().list_repo_tree(
        source.name, recursive=True, revision=source.revision, repo_type=source.kind
    )
    return [entry for entry in tree if isinstance(entry, RepoFile)]


def _damaged(
    folder: Path, source: Repository, digest: Callable[[Path], str]
) -> tuple[list[Path], bool]:
    """Return the files that differ from their checksum, and whether the Hub was asked for those."""
    paths = _files(folder, source)
    try:
        listed = _listing(source)
    except error_types() as error:
        log.info("the Hub cannot be reached (%s); taking %s", describe(error), folder)
        names = {path: path.resolve().name for path in paths}  # of its blob in the cache
        return [path for path in paths if not _fits(path, names[path], digest)], False
    sums = {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in listed}
    wrong = [
        path
        for path in paths
        if not _fits(path, sums.get(path.relative_to(folder).as_posix(), ""), digest)
    ]
    return wrong, True


def _fits(path: Path, checksum: str, digest: Callable[[Path], str]) -> bool:
    """Hold a file against a checksum: SHA-256 if it is large, else git's SHA-1."""
    if re.fullmatch("[0-9a-f]{64}", checksum):
        return digest(path) == checksum
    if re.fullmatch("[0-9a-f]{40}", checksum):
        content = path.read_bytes()
        header = b"blob %d\0" % len(content)
        return hashlib.sha1(header + content, usedforsecurity=False).hexdigest() == checksum
    return True  # a mirror with other file names has no checksum


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
