"""What a GPU computes, beside a CPU and beside itself; each test says so where there is no GPU."""

import contextlib
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from helpers import tiny_families
from helpers.family_cases import FAMILIES, SIZES, asked_about, in_double, run
from helpers.tiny_llava import SETTINGS, picture, tiny_llava
from prunecal.benchmark.workloads import SHAPES, RandomLlava, pope_like
from prunecal.core import plugins
from prunecal.core.errors import PrunecalError
from prunecal.engine import device, quantization
from prunecal.engine.session import Session
from prunecal.models import load_model
from prunecal.storage.arrays import write_tensors
from prunecal.study import quantization as study_quantization
from prunecal.study.budgets import kept_tokens

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="NOT TESTED: PyTorch sees no GPU"
)
CPU, GPU, SHARE = torch.device("cpu"), torch.device("cuda", 0), "25%"
LLAVA = {
    "llava": SimpleNamespace(family="llava", make=lambda folder: tiny_llava(folder, depth=5),
                             settings=SETTINGS)
}  # fmt: skip
EVERY = FAMILIES | LLAVA
INSIDE = ("fastv", "fastv-two-pass")


@pytest.fixture(autouse=True)
def _as_a_stage_computes():
    device.pick("cuda", 2)


@pytest.fixture(scope="module", params=EVERY)
def folder(request, tmp_path_factory):
    """A family's tiny checkpoint."""
    folder = tmp_path_factory.mktemp("family")
    with tiny_families.drawn_shape(list(EVERY).index(request.param)):
        EVERY[request.param].make(folder)
    return SimpleNamespace(path=folder, entry=EVERY[request.param])


def case_of(folder, where, *, dtype="float32", double=False):
    """Return a family's images, encoded on a device, and a session that answers there."""
    settings = {"visual_tokens": None, **folder.entry.settings, "dtype": dtype}
    model = load_model(folder.entry.family, folder.path, settings, where)
    if double:
        model.model.double()
    images = [picture(seed, size) for seed, size in enumerate(SIZES)]
    features = folder.path.with_suffix(f".{where.type}")  # beside the checkpoint
    with in_double() if double else contextlib.nullcontext():
        encoded, asked, session = asked_about(model, images, features)
    return SimpleNamespace(
        model=model, images=images, encoded=encoded, asked=asked, session=session
    )


def cells(case):
    """Return the answers of cells without pruning, pruned before the decoder and inside it."""
    counts, random = case.session.visual.counts, np.random.default_rng(0)
    order = [random.permutation(count).astype(np.int16) for count in counts]
    kept = [one[: kept_tokens(SHARE, count)] for one, count in zip(order, counts, strict=True)]
    every = [np.arange(count, dtype=np.int16) for count in counts]
    return {
        "full": run(case, "full", "all", every),
        "saliency": run(case, "saliency", SHARE, kept),
        **{name: run(case, name, SHARE) for name in INSIDE},
    }


@pytest.mark.parametrize(("double", "exact"), [(True, 1e-9), (False, 2e-5)])
def test_a_gpu_computes_what_a_cpu_does(folder, double, exact):
    cpu, gpu = (case_of(folder, where, double=double) for where in (CPU, GPU))
    for one, other in zip(cpu.encoded, gpu.encoded, strict=True):
        for name in ("features", "saliency"):
            ours = getattr(other, name).cpu()
            torch.testing.assert_close(ours, getattr(one, name), atol=exact, rtol=exact)
    with in_double() if double else contextlib.nullcontext():
        answers = [cells(case) for case in (cpu, gpu)]
    for name, expected in answers[0].items():
        for ours, theirs in zip(answers[1][name].logits, expected.logits, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=exact, err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_two_runs_on_a_gpu_are_equal_to_the_last_bit(folder, dtype):
    first, second = (case_of(folder, GPU, dtype=dtype) for _ in range(2))
    for one, other in zip(first.encoded, second.encoded, strict=True):
        assert torch.equal(one.features, other.features)
        assert torch.equal(one.saliency, other.saliency)
    again = cells(second)
    for name, answers in cells(first).items():
        for one, other in zip(answers.logits, again[name].logits, strict=True):
            assert np.isfinite(one).all()
            np.testing.assert_array_equal(one, other, err_msg=name)


def test_short_answers_on_a_gpu_are_those_on_a_cpu(folder):
    full, short = plugins.load("strategies", "full"), []
    for where in (CPU, GPU):
        case = case_of(folder, where)
        case.model.end_tokens = lambda: [2]
        path = folder.path.with_suffix(f".{where.type}")
        session = Session(case.model, case.asked, path, batch_tokens=2048, max_new_tokens=3)
        counts = session.visual.counts
        order = [np.arange(count, dtype=np.int16) for count in counts]
        none = np.zeros(len(counts), np.float32)
        short.append(session.run(full, full.Params(), "all", order, none).short)
    assert list(short[0].texts) == list(short[1].texts)
    np.testing.assert_allclose(short[1].confidence, short[0].confidence, atol=1e-4)


@pytest.fixture
def mid(tmp_path):
    """The benchmark's mid-size model on the GPU, and a session with 24 unpruned images at once."""
    with torch.inference_mode():
        model = RandomLlava(SHAPES["mid"], torch.float32, GPU)
    questions, count = pope_like(24), SHAPES["mid"].visual_tokens
    features = torch.randn(24, count, 768, generator=torch.Generator().manual_seed(0))
    names = [f"image{at}" for at in range(24)]
    write_tensors(tmp_path / "features.safetensors", {"features": features}, {"image_id": names})
    session = Session(model, questions, tmp_path / "features.safetensors", batch_tokens=2**20)
    order = np.tile(np.arange(count, dtype=np.int16), (24, 1))
    full = plugins.load("strategies", "full")
    return lambda: session.run(full, full.Params(), count, order, np.zeros(24, np.float32)).logits


def test_a_micro_batch_too_large_for_the_gpu_is_halved(mid, caplog):
    whole = np.concatenate(mid())
    torch.cuda.empty_cache()
    limit = torch.cuda.memory_allocated() + 300 * 2**20
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.mem_get_info()[1])
    try:
        with caplog.at_level(logging.WARNING):
            halved = np.concatenate(mid())
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "out of memory with 24 images in a micro-batch: halving it" in caplog.text
    np.testing.assert_allclose(halved, whole, atol=2e-5)


def test_what_is_larger_than_the_gpu_is_refused_by_its_name():
    name = torch.cuda.get_device_name(GPU)
    with pytest.raises(PrunecalError, match=rf"the weights need 1000000\.0 GB, but {name} has"):
        device.refuse_too_large("the weights", 10**15, GPU)


QUANTIZED = {  # settings, the model's dtype, and the largest difference of a logit
    "int8": ({"quantization": "int8"}, "float32", 2e-4),
    "int4": ({"quantization": "int4", "group_size": 32}, "float32", 2e-4),
    "nf4": ({"quantization": "bitsandbytes-nf4"}, "float32", 2e-4),
    "nf4 of float16": ({"quantization": "bitsandbytes-nf4"}, "float16", 5e-3),
    "nf4 of bfloat16": ({"quantization": "bitsandbytes-nf4"}, "bfloat16", 4e-2),
    "LLM.int8 of float16": ({"quantization": "bitsandbytes-int8"}, "float16", 0.1),
    "LLM.int8 of bfloat16": ({"quantization": "bitsandbytes-int8"}, "bfloat16", 0.1),
}


def rounded(settings, weight):
    """Return the weight that a quantized one stands for, computed on the CPU in float32."""
    weight, kind = weight.float().cpu(), settings["quantization"]
    if kind == "bitsandbytes-nf4":
        levels = torch.tensor(NF4)
        blocks = weight.reshape(-1, 64)
        scale = blocks.abs().amax(dim=1, keepdim=True)
        nearest = (blocks / scale)[..., None].sub(levels).abs().argmin(dim=-1)
        return (levels[nearest] * scale).reshape(weight.shape)
    bits, group = (4, settings["group_size"]) if kind == "int4" else (8, weight.shape[1])
    groups = weight.reshape(len(weight), -1, group)
    largest = 127 if kind == "bitsandbytes-int8" else (2**bits - 1) / 2
    scale = groups.abs().amax(dim=2, keepdim=True) / largest
    steps = (groups * (1 / scale)).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return (steps * scale).reshape(weight.shape)


NF4 = [  # QLoRA, appendix E (arXiv 2305.14314)
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
]  # fmt: skip


@pytest.mark.parametrize("name", QUANTIZED)
def test_a_quantized_decoder_on_a_gpu_computes_with_rounded_weights(tmp_path, name):
    settings, dtype, exact = QUANTIZED[name]
    if fault := study_quantization.missing(settings):
        pytest.skip(f"NOT TESTED: {fault}")
    tiny_llava(tmp_path, depth=3)
    folder = SimpleNamespace(path=tmp_path, entry=LLAVA["llava"])
    plain, ours, direct = (case_of(folder, GPU, dtype=dtype) for _ in range(3))
    quantization.refuse_unavailable(settings, GPU)
    quantization.quantize(ours.model.decoder.layers, settings)
    for module in direct.model.decoder.layers.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = rounded(settings, module.weight.data).to(module.weight)
    logits = [np.concatenate(cells(case)["saliency"].logits) for case in (plain, ours, direct)]
    np.testing.assert_array_equal(np.concatenate(cells(ours)["saliency"].logits), logits[1])
    np.testing.assert_allclose(logits[1], logits[2], atol=exact)
    assert np.abs(logits[1] - logits[0]).max() > 1e-3
