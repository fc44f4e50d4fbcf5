"""What a study needs of a machine is told before anything is downloaded."""

import json
import shutil
from argparse import Namespace
from collections import namedtuple

import pytest
from huggingface_hub import constants

from helpers.loopback_hub import Hub, Hubs, serve, use
from helpers.tiny_llava import tiny_llava
from prunecal import check
from prunecal.core.errors import PrunecalError
from prunecal.core.host import Memory
from prunecal.sources import hub, model_folder
from prunecal.study.model_settings import TextTower

MODEL, DATA = ("someone/llava", "a" * 40), ("someone/polls", "b" * 40)
SETTINGS = {
    "title": "t",
    "models": [
        {
            "name": "m",
            "family": "llava",
            "visual_tokens": 576,
            "dtype": "float16",
            "repo": MODEL[0],
            "revision": MODEL[1],
        }
    ],
    "datasets": [{"name": "d", "loader": "pope", "repo": DATA[0], "revision": DATA[1]}],
    "strategies": ["full"],
    "budgets": [64],
    "inference": {"gpus_per_job": 1},
}
SHARD = "model-00002-of-00002.safetensors"
GB = 10**9
Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.fixture
def model_hub(tmp_path):
    """Serve a model and a data set whose weights and rows nobody asks for."""
    files = dict.fromkeys(("config.json", "tokenizer.json", "preprocessor_config.json"), b"{}")
    files |= {"model-00001-of-00002.safetensors": b"x" * 3000, SHARD: b"y" * 2000}
    remote = Hub(MODEL[0], "model", files, MODEL[1])
    data = Hub(DATA[0], "dataset", {"data/test-00000-of-00001.parquet": b"z" * 1000}, DATA[1])
    with pytest.MonkeyPatch.context() as patch, serve(Hubs(remote, data)) as address:
        use(patch, address, tmp_path / "cache")
        yield remote
        assert not [name for name in (*remote.got, *data.got) if not name.endswith(".json")]


@pytest.fixture
def machine(monkeypatch):
    """Return a function that pretends a machine; one that will do by default."""

    def pretend(*, no_gpu=None, gpu=80 * GB, memory=64 * GB, disk=100 * GB):
        monkeypatch.setattr(check.device, "why_no_gpu", lambda: no_gpu)
        monkeypatch.setattr(check.device, "all_gpu_memory", lambda: [Memory(gpu, 80 * GB)])
        monkeypatch.setattr(check, "main_memory", lambda: Memory(memory, 64 * GB))
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(disk, 0, disk))

    pretend()
    return pretend


@pytest.fixture
def checked(tmp_path, monkeypatch):
    """Return a function that runs the stage and returns the lines that it logs."""

    def run(**changes):
        lines = []
        monkeypatch.setattr(
            check.cli.log, "info", lambda text, *values: lines.append(text % values)
        )
        settings = json.dumps(SETTINGS | changes)
        check.main(Namespace(settings=settings, results=tmp_path / "results"))
        return lines

    return run


def test_what_is_needed_and_what_is_here_is_listed_and_nothing_is_downloaded(
    model_hub, machine, checked
):
    text = "\n".join(checked())
    for part in (
        r"ok       model m                  needs 0.0 GB; here: on the Hub, in 5 files",
        r"ok       GPU                      here: 80 of 80 GB free",
        r"ok       main memory              needs 6 GB; here: 64 of 64 GB free",
        "disk of the Hub's cache",
        "everything that the study needs is here or can be downloaded",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ({"no_gpu": "this machine has no NVIDIA driver: install it"}, "asks for a GPU, but this m"),
        ({"memory": 4 * GB}, "jobs need 6 GB of main memory, but 4 of 64 GB free"),
        ({"disk": 10}, "Hub's cache needs 0.0 GB, but there are 0.0 GB free in .*; free some"),
    ],
)
def test_what_the_machine_lacks_is_named(model_hub, machine, checked, lacking, message):
    machine(**lacking)
    with pytest.raises(PrunecalError, match=message):
        checked()


def test_a_gpu_that_is_too_small_for_the_weights_is_named(machine, checked, monkeypatch):
    listed = dict.fromkeys(("config.json", "tokenizer.json", "preprocessor_config.json"), 0)
    listed["model.safetensors"] = 14_126_854_144
    monkeypatch.setattr(hub, "sizes", lambda *_: listed)
    machine(gpu=12 * GB)
    with pytest.raises(PrunecalError, match=r"needs a GPU with 18 GB, but .* has 12 of 80 GB free"):
        checked()
    machine(gpu=24 * GB, memory=15 * GB)
    assert any("needs 18 GB; here: 24 of 80 GB free" in line for line in checked())


def test_a_study_that_may_run_on_the_cpu_is_told_why_it_will(model_hub, machine, checked):
    machine(no_gpu="CUDA_VISIBLE_DEVICES is ''")
    lines = checked(inference={})
    assert any("none, because CUDA_VISIBLE_DEVICES is ''" in line for line in lines)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, r"denies access to model someone/llava .*\(HTTP 401\).*HF_TOKEN"),
        (429, r"refuses more requests for model someone/llava .*\(HTTP 429\).*wait some minutes"),
    ],
)
def test_a_model_that_the_hub_does_not_give_is_named(model_hub, machine, checked, status, message):
    model_hub.status = status
    with pytest.raises(PrunecalError, match=message):
        checked()


def test_a_repository_without_a_tokenizer_is_named(model_hub, machine, checked):
    del model_hub.files["tokenizer.json"]
    with pytest.raises(PrunecalError, match=r"someone/llava at .* has no tokenizer \(tokenizer.js"):
        checked()


def test_no_network_is_told_in_one_sentence(machine, checked, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        use(patch, "http://127.0.0.1:9", tmp_path / "cache")
        with pytest.raises(PrunecalError, match=r"http://127.0.0.1:9 cannot be reached|looked up"):
            checked()


def test_half_a_cache_is_no_whole_one(model_hub, machine, checked, monkeypatch):
    hub.fetch(*MODEL, "model", model_folder.DESCRIPTION)
    assert any("model m" in line and "on the Hub" in line for line in checked())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PrunecalError, match=f"lacks .*{SHARD}.*unset HF_HUB_OFFLINE"):
        checked()


def test_a_local_model_is_held_against_the_settings(machine, checked, tmp_path):
    folder = tmp_path / "llava"
    tiny_llava(folder)
    model = SETTINGS["models"][0] | {"path": str(folder), "repo": None, "revision": None}
    sets = [{"name": "d", "loader": "digits-pope", "images": 2}]
    with pytest.raises(PrunecalError, match="has 16 visual tokens .* visual_tokens: 576; correct"):
        checked(models=[model], datasets=sets)
    lines = checked(models=[model | {"visual_tokens": 16}], datasets=sets, budgets=[4])
    assert any(f"here: {folder}, whose files fit" in line for line in lines)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(PrunecalError, match="has no tokenizer"):
        checked(models=[model], datasets=sets)


@pytest.mark.parametrize(
    ("names", "lacks"),
    [
        (["config.json", "model.safetensors"], "no tokenizer"),
        (["tokenizer.json", "model.safetensors"], "no configuration"),
        (["config.json", "tokenizer.json"], "no weights"),
        (["open_clip_config.json", "open_clip_model.safetensors", "vocab.json"], None),
    ],
)
def test_what_a_text_tower_on_the_hub_lacks_is_named(monkeypatch, names, lacks):
    def not_here(*_):
        raise PrunecalError("it is not in the cache")

    monkeypatch.setattr(check.hub, "cached_sizes", not_here)
    monkeypatch.setattr(check.hub, "is_offline", lambda: False)
    monkeypatch.setattr(check.hub, "sizes", lambda *_: dict.fromkeys(names, 10))
    tower = TextTower(repo="a/b", revision="0" * 40)
    if lacks:
        with pytest.raises(PrunecalError, match=f"a/b at revision .* has {lacks} "):
            check._text_tower(tower)
    else:
        assert check._text_tower(tower).missing == 30
