"""Models whose decoder's weights are rounded to few bits."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from helpers.tiny_llava import SETTINGS, encoded, picture, questions, tiny_llava
from prunecal.caching import library_versions
from prunecal.core import plugins, versions
from prunecal.core.errors import PrunecalError
from prunecal.engine import quantization
from prunecal.engine.session import Session
from prunecal.models.llava import Llava
from prunecal.statistics import interactions
from prunecal.storage import files
from prunecal.storage.arrays import write_tensors
from prunecal.study import quantization as study_quantization
from prunecal.study.cells import load_study

CPU = torch.device("cpu")
INT8, INT4 = {"quantization": "int8"}, {"quantization": "int4", "group_size": 32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    tiny_llava(folder, depth=2)
    return folder


def rounded(weight, bits, group):
    """Symmetric integers of `bits` with one scale per group of a row, as numbers again."""
    groups = weight.reshape(len(weight), -1, group)
    scale = groups.abs().amax(dim=2, keepdim=True) / ((2**bits - 1) / 2)
    steps = (groups * (1 / scale)).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return (steps * scale).reshape(weight.shape)


def logits(model, path):
    session = Session(model, questions(2), path, batch_tokens=512)
    full = plugins.load("strategies", "full")
    order = [np.arange(16, dtype=np.int16)] * 2
    return np.concatenate(
        session.run(full, full.Params(), 16, order, np.zeros(2, np.float32)).logits
    )


@pytest.mark.parametrize(("settings", "bits"), [(INT8, 8), (INT4, 4)])
def test_a_quantized_decoder_computes_with_rounded_weights(folder, tmp_path, settings, bits):
    models = [Llava(folder, SETTINGS, CPU) for _ in range(3)]
    with torch.inference_mode():
        tokens, saliency = encoded(models[0], [picture(0), picture(1)])
    path = tmp_path / "features.safetensors"
    arrays = {"features": tokens.contiguous(), "saliency": saliency}
    write_tensors(path, arrays, {"image_id": ["image0", "image1"]})
    plain, ours, direct = models
    quantization.quantize(ours.decoder.layers, settings)
    for module in direct.decoder.layers.modules():
        if isinstance(module, torch.nn.Linear):
            group = settings.get("group_size", module.in_features)
            module.weight.data = rounded(module.weight.data, bits, group)
    by_model = {name: logits(one, path) for name, one in zip("pod", models, strict=True)}
    np.testing.assert_allclose(by_model["o"], by_model["d"], atol=2e-4)
    assert np.abs(by_model["o"] - by_model["p"]).max() > 1e-3
    np.testing.assert_array_equal(logits(ours, path), by_model["o"])
    assert torch.equal(ours.model.lm_head.weight, plain.model.lm_head.weight)
    with torch.inference_mode():
        assert torch.equal(ours.project(tokens), plain.project(tokens))


def test_what_cannot_be_quantized_here_is_refused_in_a_sentence(folder, monkeypatch):
    layers = Llava(folder, SETTINGS, CPU).decoder.layers
    with pytest.raises(PrunecalError, match=r"128 weights does not fit the 64 inputs of 0\.self_"):
        quantization.quantize(layers, INT4 | {"group_size": 128})
    for scheme in ("bitsandbytes-int8", "bitsandbytes-nf4"):
        with pytest.raises(PrunecalError, match="runs on a GPU alone, and the device is cpu; use"):
            quantization.refuse_unavailable({"quantization": scheme}, CPU)
    monkeypatch.setattr(study_quantization, "find_spec", lambda _: None)
    with pytest.raises(PrunecalError, match=r"not installed; run `pip install 'prunecal\[quant"):
        quantization.refuse_unavailable(INT8, CPU)
    quantization.refuse_unavailable({}, CPU)


def study(inference=None, **model):
    settings = {"name": "m", "family": "llava", "visual_tokens": 16, "path": "weights"}
    return load_study(
        {
            "title": "t",
            "models": [settings | model],
            "datasets": [{"name": "d", "loader": "digits-pope"}],
            "strategies": ["full"],
            "budgets": [4],
            "inference": inference or {},
        }
    )


def test_several_precisions_are_a_model_each():
    models = study(
        dtype=["float32", "bfloat16"], quantization=["none", "int8", "int4"], group_size=32
    ).models
    assert [one.name for one in models] == [
        f"m-{dtype}{scheme}"
        for dtype in ("float32", "bfloat16")
        for scheme in ("", "-int8", "-int4")
    ]
    plain, int8, int4 = (one.run_settings() for one in models[:3])
    assert int8 == plain | {"quantization": "int8"}
    assert int4 == plain | {"quantization": "int4", "group_size": 32}


def test_what_no_setting_allows_is_refused():
    with pytest.raises(PrunecalError, match="group_size belongs to `quantization: int4`"):
        study(quantization="int8", group_size=32)
    with pytest.raises(PrunecalError, match="runs on a GPU alone, but inference.device is cpu"):
        study({"device": "cpu"}, quantization=["none", "bitsandbytes-nf4"])


def side(**facts):
    return interactions.Side(Path("results"), SimpleNamespace(facts={"dataset": "d", **facts}))


def test_one_model_in_two_quantizations_shows_what_precision_does():
    plain, int8, int4, other = (
        side(dtype="float32", **more)
        for more in (
            {"model_digest": "w"},
            {"model_digest": "w", "quantization": "int8"},
            {"model_digest": "w", "quantization": "int4", "group_size": 32},
            {"model_digest": "v", "quantization": "int8"},
        )
    )
    alike = interactions.is_one_model_in_two_precisions
    assert alike(plain, int8)
    assert alike(int8, int4)
    assert not alike(plain, plain)
    assert not alike(plain, other)


def test_versions_of_the_quantizing_library_count_among_quantized_cells_alone(tmp_path):
    here = {name: versions.installed(name) for name in library_versions.LIBRARIES}
    cells = [here, here | {"torchao": versions.installed("torchao")}]
    assert library_versions.mixed_versions(cells) == []
    other = here | {"torchao": "0.1"}
    assert (
        "2 versions of torchao: 0.1 (1 cell), "
        in library_versions.mixed_versions([*cells, other])[0]
    )
    for number, made in enumerate((*cells, other)):
        path = tmp_path / f"m/d/s/{number}/provenance.json"
        files.write_json(path, {"versions": made})
    assert library_versions.cells_of_other_versions(tmp_path) == [tmp_path / "m/d/s/2"]
