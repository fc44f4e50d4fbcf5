"""Weights of the decoder's layers in few bits, once a model is loaded.

Quantized are the linear maps inside the decoder's layers, which hold most of its weights.
Embeddings, norms, the language-model head, the projector and the vision tower stay as they are, so
that features and rankings are those of the plain model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from prunecal.core.errors import PrunecalError
from prunecal.study.quantization import BITSANDBYTES, library, missing

if TYPE_CHECKING:
    from collections.abc import Mapping

GROUP_SIZES = (256, 128, 64, 32)
OUTLIER = 6.0  # of an activation: the paper's and transformers' choice; the library's own is none


def refuse_unavailable(settings: Mapping[str, Any], device: torch.device) -> None:
    """Refuse a quantization that cannot run here, before weights are loaded.

    Args:
        settings: of the model, see `Model.run_settings`.
        device: where it will run.

    Raises:
        PrunecalError: its library is not installed, or it needs a GPU and the device is none.
    """
    needed, scheme = library(settings), settings.get("quantization")
    if needed == "bitsandbytes" and device.type != "cuda":
        raise PrunecalError(
            f"`quantization: {scheme}` runs on a GPU alone, and the device is {device}; use a "
            "machine with a GPU, or `quantization: int8` or `int4`"
        )
    if fault := missing(settings):
        raise PrunecalError(fault)


def quantize(layers: nn.Module, settings: Mapping[str, Any]) -> None:
    """Quantize the weights of all linear maps in some layers, in place.

    int8 and int4 are symmetric integers times a scale, one scale for each output channel (int8) or
    each `group_size` weights of it (int4): `IntxWeightOnlyConfig` of torchao, which turns them back
    into the layers' dtype before each product. It holds a weight of 4 bits in 8. The integers are
    those of a CPU, wherever the layers are. The schemes of bitsandbytes are LLM.int8 (arXiv
    2208.07339), which also rounds activations to 8 bits, but for columns with an outlier in any
    token of a micro-batch, and NF4 (arXiv 2305.14314) with a scale per 64 weights.

    Args:
        layers: of the decoder, on its device.
        settings: of the model, see `Model.run_settings`.

    Raises:
        PrunecalError: the groups do not fit into the rows of a weight.
    """
    match library(settings):
        case "torchao":
            _by_torchao(layers, settings["quantization"], settings.get("group_size"))
        case "bitsandbytes":
            _by_bitsandbytes(layers, settings["quantization"].removeprefix(BITSANDBYTES))


def _by_torchao(layers: nn.Module, scheme: str, group_size: int | None) -> None:
    from torchao.quantization import IntxWeightOnlyConfig, PerAxis, PerGroup, quantize_

    if group_size is not None:
        _refuse_unfit_groups(layers, group_size)
    granularity = PerAxis(0) if group_size is None else PerGroup(group_size)
    config = IntxWeightOnlyConfig(getattr(torch, scheme), granularity)
    for module in layers.modules():
        if isinstance(module, nn.Linear):
            # On the CPU: of each group, the weight of largest size lies half way between two
            # integers, and a GPU, which divides in its own way, would take the other.
            where = module.weight.device
            quantize_(module.cpu(), config)
            module.to(where)


def _refuse_unfit_groups(layers: nn.Module, group_size: int) -> None:
    widths = {
        name: module.in_features
        for name, module in layers.named_modules()
        if isinstance(module, nn.Linear)
    }
    fit = [size for size in GROUP_SIZES if not any(width % size for width in widths.values())]
    for name, width in widths.items():
        if width % group_size:
            remedy = f"set `group_size: {fit[0]}`" if fit else "use `quantization: int8`"
            raise PrunecalError(
                f"`quantization: int4` with groups of {group_size} weights does not fit the "
                f"{width} inputs of {name} in the decoder's layers; {remedy}"
            )


def _by_bitsandbytes(layers: nn.Module, scheme: str) -> None:
    from bitsandbytes import nn as quantized

    for module in list(layers.modules()):
        for name, linear in list(module.named_children()):
            if isinstance(linear, nn.Linear):
                weight, shape = linear.weight, (linear.in_features, linear.out_features)
                options: dict[str, Any] = {"bias": linear.bias is not None}
                if scheme == "nf4":
                    made = quantized.Linear4bit(*shape, **options, compute_dtype=weight.dtype)
                    made.weight = quantized.Params4bit(
                        weight.data.cpu(),
                        requires_grad=False,
                        quant_type="nf4",
                        compress_statistics=False,  # scales in float32, transformers' choice
                    )
                else:
                    made = quantized.Linear8bitLt(
                        *shape, **options, has_fp16_weights=False, threshold=OUTLIER
                    )
                    made.weight = quantized.Int8Params(
                        weight.data.cpu(), requires_grad=False, has_fp16_weights=False
                    )
                made.bias = linear.bias
                setattr(module, name, made.to(weight.device))  # which quantizes
