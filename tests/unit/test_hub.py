"""Repositories arrive whole or with one clear sentence; the Hub answers on loopback."""

import socket
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save

from helpers.full_disk import full_disk
from helpers.loopback_hub import SHA, Hub, serve, use
from prunecal.core import disk_errors
from prunecal.core.errors import PrunecalError
from prunecal.sources import hub

REPO = "someone/small-llava"
FILES = {
    "config.json": b'{"model_type": "llava"}',
    "model.safetensors": save({"w": np.arange(5000, dtype=np.float32)}),
    "README.md": b"# not wanted",
}
PATTERNS = ["*.json", "*.safetensors"]


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """A hub with one model, and a cache of our own."""
    remote = Hub(REPO, "model", dict(FILES))
    with serve(remote) as address:
        use(monkeypatch, address, tmp_path / "cache")
        yield remote


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


WANTED = {name: FILES[name] for name in ("config.json", "model.safetensors")}


@pytest.mark.parametrize("revision", [SHA, "main"])
def test_the_files_that_are_asked_for_arrive_as_they_are(remote, revision):
    folder = hub.fetch(REPO, revision, "model", PATTERNS)
    assert contents(folder) == WANTED
    assert hub.locate(REPO, revision, "model", PATTERNS) == folder


def test_a_second_fetch_downloads_nothing(remote):
    hub.fetch(REPO, SHA, "model", PATTERNS)
    remote.got.clear()
    hub.fetch(REPO, SHA, "model", PATTERNS)
    assert remote.got == []


@pytest.mark.parametrize("fault", ["cut", "short", "altered"])
@pytest.mark.parametrize("name", WANTED)
def test_a_damaged_download_is_fetched_again(remote, name, fault):
    remote.faults[name] = fault
    assert contents(hub.fetch(REPO, SHA, "model", PATTERNS)) == WANTED
    assert remote.got.count(name) == 2


def test_a_cache_whose_disk_is_full_is_named_at_once(remote, tmp_path):
    with (
        full_disk(4096),
        pytest.raises(
            disk_errors.CannotWriteError, match="cache cannot be written .File too large"
        ),
    ):
        hub.fetch(REPO, SHA, "model", PATTERNS)
    assert remote.got.count("model.safetensors") == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("cut again", "the download of model.safetensors keeps breaking off"),
        ("short again", "model.safetensors"),
        ("altered again", "model.safetensors differs from its checksum"),
    ],
)
def test_a_download_that_stays_damaged_is_an_error_that_names_the_file(remote, fault, reason):
    remote.faults["model.safetensors"] = fault
    with pytest.raises(PrunecalError, match=f"{REPO} at revision {SHA} .*3 attempts.*{reason}"):
        hub.fetch(REPO, SHA, "model", PATTERNS)
    assert remote.got.count("model.safetensors") >= 3
    with pytest.raises(PrunecalError, match="not in the Hub's cache"):
        hub.locate(REPO, SHA, "model", PATTERNS)


@pytest.mark.parametrize("change", [lambda old: old[:-9], lambda old: old[:-1] + b"?"])
def test_a_cached_file_that_was_altered_is_fetched_again(remote, change):
    path = hub.fetch(REPO, SHA, "model", PATTERNS) / "model.safetensors"
    path.write_bytes(change(path.read_bytes()))
    assert contents(hub.fetch(REPO, SHA, "model", PATTERNS)) == WANTED


@pytest.mark.parametrize(
    ("repo", "revision"), [("someone/else", SHA), (REPO, "f" * 40), (REPO, "no-such-branch")]
)
def test_what_the_hub_does_not_have_is_named(remote, repo, revision):
    message = f"no model {repo} at revision {revision} .HTTP 404.; correct .*local folder.*`path:`"
    with pytest.raises(PrunecalError, match=message):
        hub.fetch(repo, revision, "model", PATTERNS)


def test_patterns_that_fit_no_file_are_named(remote):
    with pytest.raises(PrunecalError, match=r"no file that fits \['\*.gguf'\]"):
        hub.fetch(REPO, SHA, "model", ["*.gguf"])


def test_a_repository_that_cannot_be_one_is_named(remote):
    with pytest.raises(PrunecalError, match="`repo: no/such/name`"):
        hub.fetch("no/such/name", SHA, "model", PATTERNS)


def test_a_hub_in_trouble_is_named_with_its_status(remote):
    remote.status = 503
    with pytest.raises(PrunecalError, match=f"{REPO} at revision {SHA} .*HTTP 503.*`path:`"):
        hub.fetch(REPO, SHA, "model", PATTERNS)


def test_a_hub_that_refuses_more_requests_is_named(remote):
    remote.status = 429
    with pytest.raises(PrunecalError, match=r"HTTP 429.*wait some minutes, or set HF_TOKEN"):
        hub.fetch(REPO, SHA, "model", PATTERNS)


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_repository_is_named_with_the_token_that_opens_it(remote, status):
    remote.status = status
    with pytest.raises(
        PrunecalError, match=rf"denies access to model {REPO}.*HTTP {status}.*HF_TOKEN"
    ):
        hub.fetch(REPO, SHA, "model", PATTERNS)


def test_a_page_instead_of_the_hubs_answer_is_a_hub_out_of_reach(remote):
    remote.page = b"<html>Please sign in to this network</html>"
    with pytest.raises(PrunecalError, match=f"{REPO} at revision {SHA} cannot be fetched"):
        hub.fetch(REPO, SHA, "model", PATTERNS)


def test_half_a_cache_offline_names_the_file_that_it_lacks(remote, monkeypatch):
    path = hub.fetch(REPO, "main", "model", PATTERNS) / "model.safetensors"
    path.resolve().unlink()
    path.unlink()
    with pytest.raises(
        PrunecalError, match=r"lacks model.safetensors.*snakemake --cores 1 prefetch"
    ):
        hub.locate(REPO, SHA, "model", PATTERNS)
    remote.status = 503
    message = f"model {REPO} at revision main cannot be fetched .it lacks model.safetensors.*503"
    with pytest.raises(PrunecalError, match=message):
        hub.fetch(REPO, "main", "model", PATTERNS)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
    try:
        with pytest.raises(PrunecalError, match=r"lacks model.safetensors.*unset HF_HUB_OFFLINE"):
            hub.fetch(REPO, SHA, "model", PATTERNS)
    finally:
        monkeypatch.undo()
        huggingface_hub.close_session()


def test_a_hub_out_of_reach_is_an_error_that_names_the_remedy(tmp_path, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        use(monkeypatch, f"http://127.0.0.1:{unused.getsockname()[1]}", tmp_path)
        message = f"{REPO} at revision {SHA} cannot be fetched: .* cannot be reached .*`path:`"
        with pytest.raises(PrunecalError, match=message):
            hub.fetch(REPO, SHA, "model", PATTERNS)


def test_a_cached_copy_will_do_when_the_hub_is_out_of_reach(remote):
    folder = hub.fetch(REPO, SHA, "model", PATTERNS)
    remote.status = 503
    assert hub.fetch(REPO, SHA, "model", PATTERNS) == folder


def test_a_damaged_cached_copy_will_not_do_when_the_hub_is_out_of_reach(remote):
    path = hub.fetch(REPO, SHA, "model", PATTERNS) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    remote.status = 503
    with pytest.raises(PrunecalError, match=r"cached copy .* damaged \(model.safetensors differs"):
        hub.fetch(REPO, SHA, "model", PATTERNS)


def test_offline_mode_asks_for_nothing(remote, monkeypatch):
    hub.fetch(REPO, SHA, "model", PATTERNS)
    remote.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
    assert contents(hub.fetch(REPO, SHA, "model", PATTERNS)) == WANTED
    assert remote.asked == []
    monkeypatch.undo()
    huggingface_hub.close_session()
