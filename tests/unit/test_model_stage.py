"""The model stage gives a whole, safe model folder and its manifest, or one clear sentence."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from helpers.loopback_hub import SHA, Hub, serve, use
from prunecal import model, recipes
from prunecal.core.errors import PrunecalError
from prunecal.sources import model_folder
from prunecal.sources.weights import checked
from prunecal.sources.weights import folder as find_weights
from prunecal.storage import files

REPO = "someone/small-llava"
WEIGHTS = save({"w": np.arange(100, dtype=np.float32)})
FILES = {
    "config.json": b'{"model_type": "llava", "text_config": {"model_type": "llama"}}',
    "preprocessor_config.json": b'{"size": 56}',
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b"{}",
    "model.safetensors": WEIGHTS,
}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return a local model folder, with a file beside that is no part of the model."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in {**FILES, "README.md": b"# hello"}.items():
        (folder / name).write_bytes(content)
    return folder


def obtain(
    tmp_path: Path, source: dict, weights: Path | None = None, settings: str | None = None
) -> dict:
    """Run the stage in this process and return the manifest."""
    out = tmp_path / "manifest.json"
    params = json.dumps({"family": "llava", **source})
    options = {"params": params, "settings": settings, "manifest": out, "weights": weights}
    model.main(argparse.Namespace(model="m", **options))
    return files.read_object(out)


def test_a_local_folder_gives_a_manifest_without_its_path(folder, tmp_path):
    described = obtain(tmp_path, {"path": str(folder)})
    assert [file["name"] for file in described["files"]] == sorted(FILES)
    sizes = {file["name"]: file["size"] for file in described["files"]}
    assert sizes["model.safetensors"] == len(WEIGHTS)
    assert str(tmp_path) not in json.dumps(described)
    assert find_weights({"path": str(folder)}) == folder


@pytest.mark.parametrize(
    ("name", "settings", "mean"),
    [
        ("preprocessor_config.json", {"size": 56}, model_folder.CLIP_MEAN),
        ("preprocessor_config.json", {"image_mean": [0.5, 0.5, 0]}, [0.5, 0.5, 0]),
        ("processor_config.json", {"image_processor": {"image_mean": [0.1] * 3}}, [0.1] * 3),
        ("processor_config.json", {"image_mean": None}, model_folder.CLIP_MEAN),
        ("processor_config.json", {"image_processor": {"image_mean": [0.1, 2, 0]}}, None),
        ("processor_config.json", {"image_mean": "red"}, None),
    ],
)
def test_a_manifest_holds_the_colour_that_pads_images(folder, tmp_path, name, settings, mean):
    (folder / name).write_text(json.dumps(settings))
    if mean is None:
        with pytest.raises(PrunecalError, match="image_mean .* give three numbers from 0 to 1"):
            obtain(tmp_path, {"path": str(folder)})
    else:
        assert obtain(tmp_path, {"path": str(folder)})["image_mean"] == mean


def test_a_repository_gives_the_same_files_and_is_found_again_offline(
    folder, tmp_path, monkeypatch
):
    source = {"repo": REPO, "revision": SHA}
    remote = Hub(REPO, "model", {**FILES, "README.md": b"# hello", "pytorch_model.bin": b"x"})
    remote.faults = {"model.safetensors": "cut", "config.json": "altered"}
    with serve(remote) as address:
        use(monkeypatch, address, tmp_path / "cache")
        described = obtain(tmp_path, source)
    local = obtain(tmp_path, {"path": str(folder)})
    assert described["digest"] == local["digest"]
    assert (described["repo"], described["revision"]) == (REPO, SHA)
    assert set(remote.got) == set(FILES)
    found = find_weights(source)
    assert (found / "model.safetensors").read_bytes() == WEIGHTS


TOY = """
LABEL = "Toy"

from prunecal.core.parameters import Parameters
from safetensors.numpy import save_file
import numpy as np, pandas as pd
class Params(Parameters):
    steps: int = 1
def train(params, folder):
    if params.steps < 0:
        (folder / "config.json").write_text("half")
        raise RuntimeError("out of memory")
    (folder / "config.json").write_text('{"model_type": "llava"}')
    (folder / "processor_config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    save_file({"w": np.zeros(params.steps, dtype=np.float32)}, folder / "model.safetensors")
    return pd.DataFrame({"step": [0]})
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A recipe like any other: one file in the folder of recipes."""
    place = tmp_path / "recipes"
    place.mkdir()
    (place / "toy.py").write_text(TOY)
    monkeypatch.setattr(recipes, "__path__", [*recipes.__path__, str(place)])
    yield
    sys.modules.pop("prunecal.recipes.toy", None)


@pytest.mark.usefixtures("toy")
def test_a_recipe_trains_into_the_weights_folder_and_replaces_what_was_there(tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "stale.safetensors").write_bytes(b"old")
    source = {"train": {"recipe": "toy", "steps": 3}}
    described = obtain(tmp_path, source, weights)
    names = ["config.json", "model.safetensors", "processor_config.json", "tokenizer.json"]
    assert [file["name"] for file in described["files"]] == names
    assert described["train"] == source["train"]
    assert find_weights(source, weights) == weights
    assert sorted(path.name for path in weights.iterdir()) == names


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("umask", [0o002, 0o077], ids=oct)
def test_trained_weights_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        obtain(tmp_path, {"train": {"recipe": "toy"}}, tmp_path / "weights")
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "weights").iterdir()}
    assert modes == {0o666 & ~umask}
    assert (tmp_path / "weights").stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.usefixtures("toy")
def test_training_that_fails_leaves_nothing_under_a_final_name(tmp_path):
    weights = tmp_path / "weights"
    with pytest.raises(RuntimeError, match="out of memory"):
        obtain(tmp_path, {"train": {"recipe": "toy", "steps": -1}}, weights)
    assert not weights.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["recipes"]


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("train", "weights", "message"),
    [
        ({"recipe": "toi"}, "w", "'toi' is unknown .did you mean 'toy'"),
        ({"recipe": "toy", "step": 1}, "w", "recipe toy: 'step' is unknown .did you mean 'steps'"),
        ({"steps": 1}, "w", "names no recipe; give `recipe:`"),
        ({"recipe": "toy"}, None, "needs a folder for its weights: --weights"),
    ],
)
def test_a_training_that_cannot_start_is_named(tmp_path, train, weights, message):
    with pytest.raises(PrunecalError, match=f"(?s){message}"):
        obtain(tmp_path, {"train": train}, weights and tmp_path / weights)


@pytest.mark.parametrize(
    "source", [{}, {"repo": REPO}, {"path": "here", "repo": REPO, "revision": SHA}]
)
def test_a_model_has_one_source(tmp_path, source):
    with pytest.raises(PrunecalError, match="give a model one source"):
        obtain(tmp_path, source)


def replaced(**files: bytes | None) -> dict[str, bytes]:
    changed = {**FILES, **{name.replace("__", "."): content for name, content in files.items()}}
    return {name: content for name, content in changed.items() if content is not None}


INDEX = b'{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model.safetensors"}}'


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (replaced(model__safetensors=None), r"has no weights \(.*; copy or download"),
        (
            replaced(model__safetensors=None, pytorch_model__bin=b"x"),
            r"pickled weights only \(pytorch_model.bin\).* refused; give safetensors",
        ),
        (replaced(model__safetensors=None, m__pt=b"x"), "pickled weights only .*refused"),
        (replaced(model__safetensors=None, m__pth=b"x"), "pickled weights only .*refused"),
        (replaced(model__safetensors=WEIGHTS[:-4]), "model.safetensors is not a whole"),
        (replaced(model__safetensors=b"x"), "model.safetensors is not a whole"),
        (
            {**FILES, model_folder.INDEX: INDEX},
            "lacks the weights model-00001-of-00002.safetensors, named in",
        ),
        ({**FILES, model_folder.INDEX: b"{}"}, "has no weight_map"),
        (replaced(config__json=None), "has no config.json; give a folder in the Hub's layout"),
        (replaced(config__json=b"{"), "config.json cannot be read as JSON .*; copy or download it"),
        (replaced(generation_config__json=b"["), "cannot be read as JSON .*; copy or download it"),
        (replaced(config__json=b"{}"), "model_type None, which the family llava cannot run"),
        (replaced(config__json=b"[]"), "model_type None, which the family llava cannot run"),
        (
            replaced(config__json=b'{"model_type": "bert"}'),
            r"config.json has the model_type 'bert', which .* supported are .*llava \(llava\)",
        ),
        (
            replaced(config__json=b'{"model_type": "llava", "auto_map": {"AutoModel": "m.M"}}'),
            r"config.json requires its own code \(auto_map\); such code is never run",
        ),
        (
            replaced(config__json=b'{"model_type": "llava", "text_config": {"auto_map": {}}}'),
            "config.json requires its own code",
        ),
        (replaced(tokenizer_config__json=b'{"auto_map": {}}'), "tokenizer_config.json requires"),
        (replaced(tokenizer__json=None), r"has no tokenizer \(tokenizer.json\); copy or"),
        (replaced(preprocessor_config__json=None), "has no image processor .*; copy or download"),
        (replaced(adapter_config__json=b"{}"), "holds an adapter .* merged into"),
        (
            replaced(
                config__json=b'{"model_type": "llava", '
                b'"text_config": {"quantization_config": {"bits": 4}}}'
            ),
            "config.json says that the weights are quantised .* give the original weights",
        ),
    ],
)
def test_a_folder_that_cannot_or_must_not_be_loaded_is_named(tmp_path, files, message):
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(PrunecalError, match=message) as caught:
        obtain(tmp_path, {"path": str(folder)})
    assert str(folder) in str(caught.value)
    assert not (tmp_path / "manifest.json").exists()


def test_a_repository_with_pickled_weights_only_is_refused(tmp_path, monkeypatch):
    files = replaced(model__safetensors=None, pytorch_model__bin=b"x")
    remote = Hub(REPO, "model", files)
    with serve(remote) as address:
        use(monkeypatch, address, tmp_path / "cache")
        with pytest.raises(PrunecalError, match="no weights .*pickled ones are not taken"):
            obtain(tmp_path, {"repo": REPO, "revision": SHA})
    assert "pytorch_model.bin" not in remote.got


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PrunecalError, match="nowhere is not a folder; give"):
        obtain(tmp_path, {"path": str(tmp_path / "nowhere")})


def load(source, described, read=lambda: None):
    """Do what the stages that load a model do."""
    with checked(source, described):
        read()


CHANGES = {
    "missing": (Path.unlink, "is missing"),
    "cut off": (lambda path: path.write_bytes(WEIGHTS[:-1]), f"has {len(WEIGHTS) - 1} bytes"),
    "altered": (lambda path: path.write_bytes(b"x" + WEIGHTS[1:]), "differs from its checksum"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES.keys())
def test_a_model_that_is_no_longer_its_manifest_is_named_before_it_is_loaded(
    folder, tmp_path, change, message
):
    source = {"path": str(folder)}
    described = obtain(tmp_path, source)
    load(source, described)
    change(folder / "model.safetensors")
    with pytest.raises(
        PrunecalError, match=f"model.safetensors {message}.*`snakemake --cores 1 repair`"
    ):
        load(source, described)


def test_a_file_that_was_added_is_named(folder, tmp_path):
    described = obtain(tmp_path, {"path": str(folder)})
    (folder / "added_tokens.json").write_text("{}")
    with pytest.raises(PrunecalError, match=r"added_tokens.json was added: the model is not the"):
        load({"path": str(folder)}, described)


def test_weights_that_change_while_they_are_loaded_are_named(folder, tmp_path):
    described = obtain(tmp_path, {"path": str(folder)})

    def replace():
        shutil.copy2(folder / "model.safetensors", folder / "other")
        (folder / "other").replace(folder / "model.safetensors")

    with pytest.raises(PrunecalError, match="model.safetensors changed while it was loaded"):
        load({"path": str(folder)}, described, replace)


LINKS = [
    ("tokenizer.json", "outside.json", "is a link to .*outside.json, outside of the model's fold"),
    ("tokenizer.json", "gone.json", "is a link to .*gone.json, outside of the model's folder"),
    ("model.safetensors", "/dev/zero", "is a link to /dev/zero, outside"),
    ("processor_config.json", "model/missing.json", "is a link to .*, which is missing"),
]


@pytest.mark.parametrize(("name", "target", "message"), LINKS)
def test_a_link_out_of_a_models_folder_or_to_nothing_is_refused(
    folder, tmp_path, name, target, message
):
    (tmp_path / "outside.json").write_text("{}")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / target)
    with pytest.raises(PrunecalError, match=f"{name} {message}"):
        obtain(tmp_path, {"path": str(folder)})


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "vocab.txt"])
def test_a_pipe_in_a_models_folder_is_refused_and_not_waited_for(folder, tmp_path, name):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(PrunecalError, match=f"{name} is not a regular file|has no {name}"):
        obtain(tmp_path, {"path": str(folder)})


def test_a_fault_ends_with_one_sentence_and_the_traceback_in_the_log(request, folder, tmp_path):
    (folder / "model.safetensors").unlink()
    params = json.dumps({"family": "llava", "path": str(folder)})
    command = [sys.executable, "-m", "prunecal.model", "--model", "m", "--params", params]
    command += ["--manifest", str(tmp_path / "m.json"), "--log", str(tmp_path / "log.txt")]
    workflow = request.config.rootpath / "workflow"
    done = subprocess.run(command, capture_output=True, text=True, cwd=workflow, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "has no weights" in done.stderr
    assert "Traceback" in (tmp_path / "log.txt").read_text()
