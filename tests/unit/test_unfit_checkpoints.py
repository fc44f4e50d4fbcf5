"""A model other than the one that its manifest describes, or one with a hole in it, runs nowhere.

The stages run as the rules run them, on a tiny LLaVA. A checkpoint is spoilt either before the
model stage, which then describes it as it is, or after, when its manifest is that of the whole one.
"""

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.tiny_llava import picture, png, questions, tiny_llava, tiny_tokenizer
from prunecal import encode, infer, model
from prunecal.core.errors import PrunecalError
from prunecal.storage import files

SETTINGS = {
    "family": "llava",
    "visual_tokens": 16,
    "template": "vicuna_v1",
    "image": "pad",
    "dtype": "float32",
}
CELLS = [{"strategy": "fastv", "family": "fastv", "parameters": {"layer": 2}, "budget": 4}]
PROJECTOR = "multi_modal_projector.linear_1.weight"


class Study:
    """A model's folder and a data set, and the stages that make cells of them."""

    def __init__(self, root):
        self.root, self.folder = root, root / "model"
        self.weights = self.folder / "model.safetensors"

    def describe(self):
        source = json.dumps({"family": "llava", "path": str(self.folder)})
        manifest = self.root / "manifest.json"
        options = {"params": source, "settings": None, "manifest": manifest, "weights": None}
        model.main(SimpleNamespace(model="m", **options))

    def common(self):
        return {
            "manifest": self.root / "manifest.json",
            "weights": None,
            "source": json.dumps({"path": str(self.folder)}),
            "settings": json.dumps(SETTINGS),
            "device": "cpu",
            "threads": 1,
        }

    def encode(self):
        images, out = self.root / "images.parquet", self.root / "features.safetensors"
        options = {"images": images, "out": out, "signals": [], "budget": None}
        encode.main(SimpleNamespace(**self.common(), **options))

    def describe_and_encode(self):
        self.describe()
        self.encode()

    def infer(self, layers=None):
        infer.main(
            SimpleNamespace(
                **self.common(),
                model="m",
                layers=layers,
                dataset="d",
                cells=json.dumps(CELLS),
                questions=self.root / "questions.parquet",
                features=self.root / "features.safetensors",
                folder=self.root / "results",
                store=self.root / "cells",
                batch_tokens=4096,
            )
        )

    def cells(self):
        return list(self.root.rglob("predictions.parquet"))

    def edit(self, change):
        """Change the tensors of the checkpoint, which keeps the form of its file."""
        tensors = load_file(self.weights)
        whole = {name: tensor.clone() for name, tensor in change(tensors).items()}
        save_file(whole, self.weights, metadata={"format": "pt"})

    def edit_json(self, name, **changes):
        path = self.folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study whose cell is computed."""
    study = Study(tmp_path_factory.mktemp("study"))
    tiny_llava(study.folder)
    ids, frame = [f"image{number}" for number in range(3)], questions()
    table = pa.table({"image_id": ids, "bytes": [png(picture(n)) for n in range(3)]})
    files.write_table(study.root / "images.parquet", table, {})
    facts = {"dataset": "d", "revision": "1"}
    table = pa.Table.from_pandas(frame, preserve_index=False)
    files.write_table(study.root / "questions.parquet", table, facts)
    study.describe_and_encode()
    study.infer()
    assert len(study.cells()) == 2  # in the store and in its place
    return study


@pytest.fixture
def study(finished, tmp_path):
    """The study as it is before the cell is computed."""
    shutil.copytree(finished.root, tmp_path / "study")
    study = Study(tmp_path / "study")
    shutil.rmtree(study.root / "cells")
    shutil.rmtree(study.root / "results")
    return study


def dropped(study):
    study.edit(lambda tensors: {k: v for k, v in tensors.items() if "projector" not in k})


def added(study):
    study.edit(lambda tensors: tensors | {"language_model.model.extra.weight": torch.ones(3)})


def reshaped(study):
    study.edit(lambda tensors: tensors | {PROJECTOR: tensors[PROJECTOR][:, :40]})


def renamed(study):
    study.edit(lambda tensors: {k.replace("linear_1", "linear_a"): v for k, v in tensors.items()})


def truncated(study):
    study.weights.write_bytes(study.weights.read_bytes()[:-1000])


def damaged(study):
    status, content = study.weights.stat(), bytearray(study.weights.read_bytes())
    for at in range(len(content) // 2, len(content), 4001):
        content[at] ^= 0x40
    study.weights.write_bytes(content)
    os.utime(study.weights, ns=(status.st_atime_ns, status.st_mtime_ns))


def swapped(study):
    """Put another model's weights there as `cp -p` and `mv` do: of equal size and time."""
    status = study.weights.stat()
    tiny_llava(study.root / "other", seed=1)
    other = study.root / "other" / "model.safetensors"
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(study.weights)
    found = study.weights.stat()
    assert (found.st_size, found.st_mtime_ns) == (status.st_size, status.st_mtime_ns)


def other_config(study):
    config = json.loads((study.folder / "config.json").read_text())
    study.edit_json("config.json", text_config=config["text_config"] | {"num_hidden_layers": 5})


def other_epsilon(study):
    config = json.loads((study.folder / "config.json").read_text())
    study.edit_json("config.json", text_config=config["text_config"] | {"rms_norm_eps": 0.1})


def other_precision(study):
    study.edit(lambda tensors: {name: tensor.half() for name, tensor in tensors.items()})


def other_tokenizer(study):
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["cat"])
    tokenizer.save_pretrained(study.folder)


def other_processor(study):
    config = json.loads((study.folder / "processor_config.json").read_text())
    image = config["image_processor"] | {"image_mean": [0.5, 0.5, 0.5]}
    study.edit_json("processor_config.json", image_processor=image)


def not_finite(study):
    def spoil(tensors):
        tensors[PROJECTOR][0, 0] = float("nan")
        return tensors

    study.edit(spoil)


def stored_twice(study):
    tensors = {PROJECTOR: load_file(study.weights)[PROJECTOR] * 2}
    save_file(tensors, study.folder / "more.safetensors", metadata={"format": "pt"})


def larger_tokenizer(study):
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"word{number}" for number in range(5000)])
    tokenizer.save_pretrained(study.folder)


def image_token_as_text(study):
    """Let the tokenizer hold the placeholder with its id, but cut it as it cuts any text."""
    path = study.folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"] = [
        one for one in content["added_tokens"] if one["content"] != "<image>"
    ]
    path.write_text(json.dumps(content))
    study.edit_json("tokenizer_config.json", extra_special_tokens=[])


def double_precision(study):
    study.edit(lambda tensors: tensors | {PROJECTOR: tensors[PROJECTOR].double()})


def no_positions(study):
    config = json.loads((study.folder / "config.json").read_text())
    study.edit_json(
        "config.json", text_config=config["text_config"] | {"max_position_embeddings": 0}
    )


AFTER = {  # the manifest: what is named
    dropped: "model.safetensors has",
    added: "model.safetensors has",
    reshaped: "model.safetensors has",
    renamed: "model.safetensors (has|differs)",
    truncated: "model.safetensors has",
    damaged: "model.safetensors differs from its checksum",
    swapped: "model.safetensors differs from its checksum",
    other_config: "config.json (has|differs)",
    other_epsilon: "config.json (has|differs)",
    other_precision: "model.safetensors has",
    other_tokenizer: "tokenizer.json has",
    other_processor: "processor_config.json (has|differs)",
}
FRESH = {
    dropped: r"lacks the tensor model.multi_modal_projector.linear_1.bias \(and 3 more\)",
    added: "has a tensor that the model does not have: .*extra.weight",
    reshaped: r"another shape than the model for the tensor .*linear_1.weight",
    renamed: r"lacks the tensor model.multi_modal_projector.linear_1.bias",
    truncated: "model.safetensors is not a whole safetensors file",
    other_config: r"lacks the tensor model.language_model.layers.4.* \(and 8 more\)",
    other_precision: "as F16, but config.json states float32",
    not_finite: "the tensor model.multi_modal_projector.linear_1.weight holds NaN or infinity",
    stored_twice: "more.safetensors stores the tensor .*, which model.safetensors has too",
    larger_tokenizer: r"tokenizer has ids up to 5\d+, but the model has embeddings for",
    image_token_as_text: "tokenizer knows <image> as plain text, not as a token",
    double_precision: "as F64, but supported are F32, F16, BF16",
    no_positions: "max_position_embeddings: 0",
}


@pytest.mark.parametrize("spoil", AFTER, ids=lambda spoil: spoil.__name__)
def test_no_stage_loads_a_model_that_is_not_its_manifests(study, spoil):
    spoil(study)
    features = study.root / "features.safetensors"
    named = f"{AFTER[spoil]}.*: the model is not the one in .*manifest.json"
    with pytest.raises(PrunecalError, match=named):
        study.infer()
    features.unlink()
    with pytest.raises(PrunecalError, match=named):
        study.encode()
    assert not features.exists()
    assert study.cells() == []


def test_a_manifest_that_states_another_digest_than_its_files_give_loads_nothing(study):
    manifest = study.root / "manifest.json"
    files.write_json(manifest, files.read_json(manifest) | {"digest": "0" * 64})
    with pytest.raises(PrunecalError, match="manifest.json states another digest .*; delete it"):
        study.infer()
    assert study.cells() == []


@pytest.mark.parametrize("spoil", FRESH, ids=lambda spoil: spoil.__name__)
def test_a_checkpoint_that_does_not_fit_its_config_is_refused_by_name(study, spoil):
    spoil(study)
    (study.root / "features.safetensors").unlink()
    with pytest.raises(PrunecalError, match=FRESH[spoil]):
        study.describe_and_encode()
    assert not (study.root / "features.safetensors").exists()


def edited(name, block=None, **changes):
    def spoil(study):
        whole = json.loads((study.folder / name).read_text())
        study.edit_json(name, **({block: whole[block] | changes} if block else changes))

    return spoil


def in_part(part, **changes):
    return edited("config.json", part, **changes)


def image_setting(**changes):
    return edited("processor_config.json", "image_processor", **changes)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (edited("config.json", vision_feature_layer=-99), "from layer -99 of 3"),
        (edited("config.json", vision_feature_layer=-4), "from layer -4 of 3"),
        (edited("config.json", vision_feature_layer=4), "from layer 4 of 3"),
        (in_part("vision_config", image_size=None), "image_size: None in vision_config"),
        (in_part("vision_config", num_attention_heads=-1), "num_attention_heads: -1 in vision"),
        (edited("config.json", image_token_index=3), "id of <image>, but config.json says 3"),
        (edited("config.json", text_config=None), "describes a model of 6,7.* parameters"),
        (
            image_setting(image_std="x"),
            "image processor's settings cannot be read",
        ),
        (
            image_setting(resample=99),
            "image processor's settings cannot be read",
        ),
        (
            image_setting(crop_size={"height": 28, "width": 28}),
            r"\(sizes \['28', '56'\]\), but the tower takes 56 x 56 pixels of the whole",
        ),
        (image_setting(size={"shortest_edge": 10**9}), "sizes .*'1000000000'.* 56 x 56 pixels"),
        (image_setting(do_rescale=False), "image processor has the do_rescale False"),
        (image_setting(rescale_factor=0), "image processor has the rescale_factor 0"),
        (image_setting(image_std=[1, -1, 1]), r"image processor has the image_std \(1, -1, 1\)"),
        (in_part("text_config", num_hidden_layers=10**9), "num_hidden_layers: 1000000000, more"),
        (edited("tokenizer_config.json", bos_token="a"), "special token 'a', which is plain text"),
        (edited("tokenizer_config.json", model_max_length="a"), "tokenizer's files cannot be read"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused_before_an_image_is_read(
    study, spoil, message
):
    spoil(study)
    (study.root / "features.safetensors").unlink()
    with pytest.raises(PrunecalError, match=message):
        study.describe_and_encode()
    assert not (study.root / "features.safetensors").exists()


def test_another_number_of_layers_than_the_decoders_is_refused_by_name(study):
    with pytest.raises(PrunecalError, match="m: layers is 5, but its decoder has 4; set"):
        study.infer(layers=5)
    assert study.cells() == []
    study.infer(layers=4)
    assert len(study.cells()) == 2


def test_another_whole_model_has_cells_of_its_own(study, finished):
    swapped(study)
    study.describe()
    study.encode()
    study.infer()
    mine, theirs = (one.root / "results/fastv/4/predictions.parquet" for one in (study, finished))
    logits = [
        np.concatenate(files.read_table(path)["logits"].to_pylist()) for path in (mine, theirs)
    ]
    assert not np.allclose(*logits)
    digests = [files.read_facts(path)["model_digest"] for path in (mine, theirs)]
    assert digests[0] != digests[1]


@pytest.mark.parametrize("name", ["tokenizer.json", "processor_config.json", "config.json"])
def test_a_file_that_a_library_cannot_read_is_named_and_nobody_is_asked_to_report_it(study, name):
    (study.folder / name).write_text('{"model_type": "llava", "version": [1')
    with pytest.raises(PrunecalError, match=r"config.json|tokenizer's files|image processor's"):
        study.describe_and_encode()


def test_buffers_that_older_exports_hold_are_passed_over(study):
    study.edit(
        lambda tensors: (
            tensors
            | {
                "vision_tower.vision_model.embeddings.position_ids": torch.arange(17)[None],
                "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
            }
        )
    )
    study.describe_and_encode()
    study.infer()
    assert len(study.cells()) == 2


def test_a_checkpoints_own_head_is_used_whatever_its_config_ties(study, finished):
    """Transformers compares the two before it ties them, but it sees stand-ins alone."""
    study.edit_json("config.json", tie_word_embeddings=True)
    study.describe_and_encode()
    study.infer()
    tied, right = (
        files.read_table(one.root / "results/fastv/4/predictions.parquet").column("logits")
        for one in (study, finished)
    )
    assert tied.equals(right)


def test_a_checkpoint_whose_head_is_its_embedding_needs_no_tensor_for_the_head(study):
    config = json.loads((study.folder / "config.json").read_text())
    tied = {"tie_word_embeddings": True}
    study.edit_json("config.json", text_config=config["text_config"] | tied, **tied)
    study.edit(lambda tensors: {k: v for k, v in tensors.items() if "lm_head" not in k})
    study.describe_and_encode()
    study.infer()
    assert len(study.cells()) == 2
