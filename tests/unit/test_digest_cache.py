"""A digest is remembered as long as the file cannot have changed, and no longer."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from prunecal.storage import digest_cache
from prunecal.storage.digest_cache import DigestCache, digest_of_all


@pytest.fixture
def hashed(monkeypatch):
    """List the files that are really read."""
    paths = []

    def file_digest(path):
        paths.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(digest_cache, "file_digest", file_digest)
    monkeypatch.setattr(digest_cache, "CLOCK_STEP", -1.0)  # the tests' files are new
    return paths


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    os.utime(path, ns=(10**18, 10**18))
    return path


def digest(path):
    """Ask as another process would."""
    return DigestCache(path.with_name(".digests")).digest(path)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_an_unchanged_file_is_read_once(path, hashed):
    assert [digest(path) for _ in range(3)] == [sha256(b"one")] * 3
    assert hashed == ["weights"]


def overwrite(path):
    path.write_bytes(b"two")


def move(path):
    path.with_name("other").write_bytes(b"two")
    path.with_name("other").replace(path)


def copy(path):
    path.with_name("other").write_bytes(b"two")
    os.utime(path.with_name("other"), ns=(10**18, 10**18))
    shutil.copy2(path.with_name("other"), path)  # as `cp -p`


@pytest.mark.parametrize("change", [overwrite, move, copy])
def test_another_content_of_the_same_size_and_time_is_noticed(path, hashed, change):
    digest(path)
    change(path)
    os.utime(path, ns=(10**18, 10**18))
    assert digest(path) == sha256(b"two")
    assert len(hashed) == 2


def test_a_file_that_was_written_a_moment_ago_is_not_remembered(path, hashed, monkeypatch):
    monkeypatch.setattr(digest_cache, "CLOCK_STEP", 2.0)
    digest(path)
    digest(path)
    assert len(hashed) == 2


@pytest.mark.parametrize("content", [b"", b"\xff\n", b"0" * 64 + b" 1 2", b"half a li"])
def test_a_damaged_cache_costs_a_rehash_and_no_more(path, hashed, content):
    digest(path)
    path.with_name(".digests").write_bytes(content)
    assert digest(path) == sha256(b"one")
    assert len(hashed) == 2


def test_a_cache_that_cannot_be_written_hinders_nothing(path, hashed):
    cache = DigestCache(Path("/proc/nowhere/.digests"))
    assert cache.digest(path) == sha256(b"one")


def test_files_together_have_one_digest_of_their_contents_alone(tmp_path, path, hashed):
    other = tmp_path / "other"
    other.write_bytes(b"two")
    together = digest_of_all([path, other], tmp_path / ".digests")
    os.utime(other)
    assert digest_of_all([str(path), str(other)], tmp_path / ".digests") == together
    assert digest_of_all([other, path], tmp_path / ".digests") != together
    assert digest_of_all([], tmp_path / ".digests") == ""
