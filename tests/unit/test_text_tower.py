"""CLIP's text tower: obtained, loaded from two layouts, and its embeddings against transformers."""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from helpers.loopback_hub import SHA, Hub, serve, use
from helpers.tiny_clip import as_open_clip, tiny_clip, tokenizer
from helpers.tiny_llava import tiny_llava
from prunecal import check, verify
from prunecal import text_tower as stage
from prunecal.caching import lineage, outdated
from prunecal.core.errors import PrunecalError
from prunecal.models._same_tower import refuse_other_tower
from prunecal.models._text_tower import TextTower
from prunecal.sources import text_tower
from prunecal.sources.weights import checked
from prunecal.storage import files
from prunecal.storage.arrays import write_arrays
from prunecal.study.cells import load_study

ROOT = Path(__file__).parents[2]
TEXTS = ["Is there a cat in the image?", "Which is longer? " * 9, "a photo"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    return folder, tiny_clip(folder)


def test_embeddings_are_those_of_transformers_however_texts_are_batched(clip):
    folder, model = clip
    tower, cut = TextTower(folder), tokenizer()
    with torch.inference_mode():
        expected = [
            model.get_text_features(
                **cut(text, return_tensors="pt", truncation=True, max_length=16)
            ).pooler_output[0]
            for text in TEXTS
        ]
    torch.testing.assert_close(tower.embed(TEXTS, batch=2), torch.stack(expected))
    assert not torch.allclose(expected[0], expected[1])


def test_a_long_text_is_embedded_in_segments_of_which_the_last_alone_ends(clip):
    folder, model = clip
    ids = tokenizer()(TEXTS[1])["input_ids"]
    embedded, counts = TextTower(folder).embed_segments(TEXTS)
    assert counts == [1, -(-len(ids) // 16), 1]
    padded = torch.tensor(ids + [0] * (16 * counts[1] - len(ids))).view(-1, 16)
    with torch.inference_mode():  # as the official code: padded with token 0 and mask 0
        mask = (torch.arange(padded.numel()) < len(ids)).long().view_as(padded)
        expected = model.get_text_features(padded, attention_mask=mask).pooler_output
    torch.testing.assert_close(embedded[1 : 1 + counts[1]], expected)


def test_a_checkpoint_of_open_clip_gives_the_same_tower(clip, tmp_path):
    folder, model = clip
    as_open_clip(model, tmp_path, quick_gelu=True)
    one, other = TextTower(folder), TextTower(tmp_path)
    torch.testing.assert_close(other.embed(TEXTS), one.embed(TEXTS))
    assert torch.equal(other.projection.matrix, one.projection.matrix)
    assert torch.equal(other.projection.norm, one.projection.norm)
    as_open_clip(model, tmp_path)
    with pytest.raises(PrunecalError, match="does not say which activation .* `activation: quick"):
        TextTower(tmp_path)
    torch.testing.assert_close(TextTower(tmp_path, "quick_gelu").embed(TEXTS), one.embed(TEXTS))
    assert not torch.allclose(TextTower(tmp_path, "gelu").embed(TEXTS), one.embed(TEXTS))
    with pytest.raises(PrunecalError, match="has the activation quick_gelu, but the study's"):
        TextTower(folder, "gelu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("visual_projection.weight"), "lacks visual_projection.weight"),
        (
            lambda state: state.pop("text_model.final_layer_norm.bias"),
            "the text tower lacks text_model.final_layer_norm.bias",
        ),
        (
            lambda state: state.update({"text_projection.weight": torch.zeros(24, 30)}),
            r"text_projection.weight of shape \[24, 30\], but its configuration says \[24, 32\]",
        ),
    ],
    ids=["projection", "part", "shape"],
)
def test_a_checkpoint_that_is_not_whole_is_refused(clip, tmp_path, change, message):
    for path in clip[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    state = load_file(tmp_path / "model.safetensors")
    change(state)
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(PrunecalError, match=message):
        TextTower(tmp_path)


def described_and_loaded(folder):
    text_tower.describe(folder, {"path": str(folder)})
    return TextTower(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_hidden_layers", 10**9, "num_hidden_layers: 1000000000, more than 1000"),
        ("num_attention_heads", -1, "configuration cannot be read"),
        ("layer_norm_eps", None, "configuration cannot be read"),
    ],
)
def test_a_configuration_that_no_tower_has_is_refused(clip, tmp_path, key, value, message):
    for path in clip[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"][key] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(PrunecalError, match=message):
        described_and_loaded(tmp_path)


def test_a_tensor_that_is_stored_twice_or_not_finite_is_refused(clip, tmp_path):
    for path in clip[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    name = "visual_projection.weight"
    weight = load_file(tmp_path / "model.safetensors")[name]
    save_file({name: weight * 2}, tmp_path / "model-2.safetensors")
    with pytest.raises(PrunecalError, match="visual_projection.weight is stored twice"):
        TextTower(tmp_path)
    (tmp_path / "model-2.safetensors").unlink()
    save_file({name: weight * torch.inf}, tmp_path / "model.safetensors")
    with pytest.raises(PrunecalError, match="visual_projection.weight holds NaN or infinity"):
        TextTower(tmp_path)


def test_a_tokenizer_whose_texts_do_not_end_is_refused(clip, tmp_path):
    for path in clip[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    other = json.loads((tmp_path / "tokenizer.json").read_text())
    other["post_processor"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(other))
    with pytest.raises(PrunecalError, match="do not end where the tower's embedding is read"):
        TextTower(tmp_path)


def obtain(tmp_path, **source):
    manifest = tmp_path / "manifest.json"
    stage.main(argparse.Namespace(source=json.dumps(source), manifest=manifest))
    return files.read_object(manifest)


@pytest.mark.parametrize("layout", ["transformers", "open_clip"])
def test_a_repository_is_fetched_in_part_and_checked_when_it_is_loaded(
    clip, tmp_path, monkeypatch, layout
):
    folder, held = clip[0], tmp_path / "held"
    if layout == "open_clip":
        as_open_clip(clip[1], held, quick_gelu=True)
        folder = held
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    remote = Hub(
        "someone/clip", "model", {**content, "pytorch_model.bin": b"x", "x.safetensors": b""}
    )
    with serve(remote) as address:
        use(monkeypatch, address, tmp_path / "cache")
        described = obtain(tmp_path, repo="someone/clip", revision=SHA)
    assert set(remote.got) == set(content)
    assert described["digest"] == obtain(tmp_path, path=str(folder))["digest"]
    assert (described["family"], described["revision"]) == ("text-tower", SHA)
    with checked({"repo": "someone/clip", "revision": SHA}, described) as place:
        TextTower(place)
    weights = text_tower.weights(place)[0].resolve()
    weights.write_bytes(weights.read_bytes()[:-1])
    with (
        pytest.raises(PrunecalError, match="bytes instead of"),
        checked({"repo": "someone/clip", "revision": SHA}, described),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.safetensors", "no weights .* pickled weights can run code .* safetensors"),
        ("tokenizer.json", "has no tokenizer"),
        ("config.json", "neither a config.json of the model_type clip nor open_clip_config.json"),
    ],
)
def test_a_folder_that_lacks_a_part_is_refused(clip, tmp_path, name, message):
    for path in clip[0].iterdir():
        if path.name != name:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(PrunecalError, match=message):
        obtain(tmp_path / "out", path=str(tmp_path))


def test_embeddings_that_are_not_finite_are_refused(clip, monkeypatch):
    tower = TextTower(clip[0])
    tower._model.text_projection.weight.fill_(np.inf)
    with pytest.raises(PrunecalError, match="the text tower gives NaN or infinity"):
        tower.embed(TEXTS)


def named(**tower):
    """Return a study whose model has this text tower."""
    settings = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    models = [settings["models"][0] | {"name": "m", "text_tower": tower}]
    datasets = settings["datasets"][:1]
    own = {"models": models, "datasets": datasets, "strategies": ["full", "trim"], "budgets": [8]}
    return settings | own


def test_a_tower_that_changes_is_named_with_what_was_made_from_it(clip, tmp_path):
    folder, results = tmp_path / "clip", tmp_path / "results"
    shutil.copytree(clip[0], folder)
    study = load_study(named(path=str(folder)))
    manifest = results / "models" / "m-text-tower" / "manifest.json"
    described = text_tower.describe(folder, {})
    files.write_json(manifest, described)
    signal = results / "m" / "polls" / "signals" / "text_embeds.safetensors"
    facts = {"model": described["digest"], "question": ["q"]}
    write_arrays(signal, {"signal": np.zeros((1, 2), np.float32)}, facts)
    assert list(verify.damaged_weights(results, study)) == []
    assert lineage.foreign_files(results) == []
    (folder / "tokenizer.json").write_text("{}")
    ((_, path, fault),) = verify.damaged_weights(results, study)
    assert (path.name, fault[:3]) == ("tokenizer.json", "has")
    files.write_json(manifest, described | {"digest": "0" * 64})
    ((path, reason),) = lineage.foreign_files(results)
    assert (path, reason) == (signal, "from other weights than the model's manifest lists")
    pinned = load_study(named(repo="someone/clip", revision=SHA))
    other = [row.path for row in outdated.of_other_settings(results, pinned, {})]
    assert other == [manifest]


def test_check_names_a_tower_whose_weights_are_not_safetensors(clip, tmp_path, monkeypatch):
    content = {path.name: path.read_bytes() for path in clip[0].iterdir()}
    remote = Hub("someone/clip", "model", content)
    tower = load_study(named(repo="someone/clip", revision=SHA)).models[0].text_tower
    with serve(remote) as address:
        use(monkeypatch, address, tmp_path / "cache")
        found = check._text_tower(tower)
        assert (found.size, remote.got) == (sum(map(len, content.values())), [])
        remote.files = {"config.json": content["config.json"], "pytorch_model.bin": b"pickle"}
        with pytest.raises(PrunecalError, match="someone/clip at revision .* has no weights"):
            check._text_tower(tower)


def test_the_names_of_the_hubs_checkpoints_are_known(clip, tmp_path):
    """Those of openai/clip-vit-large-patch14-336, with the buffers that older exports hold."""
    for path in clip[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    state = load_file(tmp_path / "model.safetensors")
    outer = {name for name in state if ".layers." not in name}
    assert outer == {
        "logit_scale",
        "text_projection.weight",
        "visual_projection.weight",
        *(f"text_model.embeddings.{name}_embedding.weight" for name in ("token", "position")),
        *(f"text_model.final_layer_norm.{kind}" for kind in ("weight", "bias")),
        "vision_model.embeddings.class_embedding",
        *(f"vision_model.embeddings.{name}_embedding.weight" for name in ("patch", "position")),
        *(
            f"vision_model.{norm}.{kind}"
            for norm in ("pre_layrnorm", "post_layernorm")
            for kind in ("weight", "bias")
        ),
    }
    layer = "text_model.encoder.layers.1."
    assert {name.removeprefix(layer) for name in state if name.startswith(layer)} == {
        f"{part}.{kind}"
        for part in (
            *(f"self_attn.{one}_proj" for one in ("q", "k", "v", "out")),
            *("layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2"),
        )
        for kind in ("weight", "bias")
    }
    expected = TextTower(tmp_path).embed(TEXTS)
    for tower, length in (("text", 16), ("vision", 17)):
        state[f"{tower}_model.embeddings.position_ids"] = torch.arange(length)[None]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    assert torch.equal(TextTower(tmp_path).embed(TEXTS), expected)


def test_a_clip_of_another_vision_tower_than_the_models_is_refused(tmp_path):
    """Of the same width, so that its projection would take the features."""
    model = tiny_llava(tmp_path / "llava")
    own = tiny_clip(tmp_path / "own", tower=model.model.vision_tower.half())
    as_open_clip(own, tmp_path / "open")
    for name in ("own", "open"):
        refuse_other_tower(tmp_path / name, tmp_path / "llava")
    tiny_clip(tmp_path / "other")
    with pytest.raises(PrunecalError, match="other: its vision tower has other weights than that"):
        refuse_other_tower(tmp_path / "other", tmp_path / "llava")
    tiny_llava(tmp_path / "larger", image_size=84)
    for name in ("own", "open"):
        with pytest.raises(PrunecalError, match="image_size 56, but that of .*larger has 84"):
            refuse_other_tower(tmp_path / name, tmp_path / "larger")
