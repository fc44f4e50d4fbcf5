"""Load checkpoints in the Hub's layout so that a model has the checkpoint's weights and no others.

Transformers initialises at random what a checkpoint lacks, leaves out what the model does not know,
and casts every tensor to the type it is asked for, each with no more than a warning. It also builds
the whole model in main memory before it moves to a GPU. Here it only decides which stored tensor
belongs to which parameter, from stand-ins of the same shapes that take no memory; each tensor is
then read from its file straight to the device.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunecal.core import disk_errors
from prunecal.core.errors import PrunecalError, cut
from prunecal.engine import device as devices

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import torch
    from transformers import PretrainedConfig, PreTrainedModel

DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}  # of torch and of safetensors
OWN = {"local_files_only": True, "trust_remote_code": False}  # never asks, never runs its code
BUFFERS = (".position_ids", ".rotary_emb.inv_freq")  # in older exports; the model computes them
FAULTS = {  # of transformers' loading info
    "missing_keys": "lacks the tensor",
    "mismatched_keys": "has another shape than the model for the tensor",
    "unexpected_keys": "has a tensor that the model does not have:",
}


@dataclass(frozen=True)
class Stored:
    """A tensor in a safetensors file: its type, for example "F16", and its shape."""

    path: Path
    kind: str
    shape: list[int]


def load_weights(
    kind: type[PreTrainedModel],
    folder: Path,
    config: PretrainedConfig,
    dtype: str,
    device: torch.device,
    leave_out: Sequence[str] = (),
) -> PreTrainedModel:
    """Return a model with the weights of a folder, on the device and in evaluation mode.

    Main memory holds one tensor at a time beside what the device holds. The whole checkpoint is
    compared with the model before a tensor is read, also where parts are left out.

    Args:
        kind: the model's class in transformers.
        folder: safetensors in the Hub's layout.
        config: the folder's configuration.
        dtype: "float32", "float16" or "bfloat16", to which the weights are cast.
        device: where to run.
        leave_out: modules that are not loaded and become None, for example "model.vision_tower".

    Raises:
        PrunecalError: a tensor of the model is missing or has another shape, the folder has a
            tensor that the model does not have, that is there twice, of an unfit type or not
            finite, it cannot be read, or the device has too little memory.
    """
    import torch

    stored = _stored_tensors(folder, config)
    _refuse_far_larger(kind, folder, config)
    precision = getattr(torch, dtype)
    stand_ins = {  # a head that differs from the embedding is never replaced by it
        name: torch.full((), float("embed" in name), dtype=precision).expand(tensor.shape)
        for name, tensor in stored.items()
        if not name.endswith(BUFFERS)
    }
    with readable(folder, "weights"):
        model, info = kind.from_pretrained(
            None,
            config=config,
            state_dict=stand_ins,
            dtype=precision,
            attn_implementation="sdpa",
            local_files_only=True,
            ignore_mismatched_sizes=True,  # they are in the loading info, with their names
            output_loading_info=True,
        )
    _refuse_unlike(folder, info)
    origins = {tensor.data_ptr(): name for name, tensor in stand_ins.items()}
    _refuse_unused(model, folder, origins)
    model.name_or_path = model.config.name_or_path = str(folder)
    for name in leave_out:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, None)
    _fill(model, folder, stored, origins, device)
    return model.to(device).eval().requires_grad_(requires_grad=False)  # and computed buffers


def _refuse_unlike(folder: Path, info: Mapping[str, Any]) -> None:
    for key, fault in FAULTS.items():
        names = sorted(name if isinstance(name, str) else name[0] for name in info[key])
        names = [name for name in names if not name.endswith(BUFFERS)]
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise PrunecalError(
                f"{folder}: the checkpoint {fault} {cut(names[0])}{more}; download or convert it "
                "again, with a config.json that fits its weights"
            )


def _refuse_unused(model: PreTrainedModel, folder: Path, origins: Mapping[int, str]) -> None:
    used = {origins.get(value.data_ptr()) for value in (*model.parameters(), *model.buffers())}
    for name in sorted(set(origins.values()) - used):
        raise PrunecalError(
            f"{folder}: the model takes another tensor in place of {cut(name)}; give the weights "
            "their own config.json"
        )


def _fill(
    model: PreTrainedModel,
    folder: Path,
    stored: Mapping[str, Stored],
    origins: Mapping[int, str],
    device: torch.device,
) -> None:
    """Replace stand-ins by the tensors that they stand for.

    Args:
        model: its parameters share their memory with stand-ins.
        folder: the checkpoint's, for messages.
        stored: the checkpoint's tensors by name.
        origins: names of stored tensors by the address of their stand-ins.
        device: where the tensors go.
    """
    parameters = dict(model.named_parameters())
    values = [*parameters.items(), *model.named_buffers()]
    sources = {name: origins.get(value.data_ptr()) for name, value in values}
    for name in parameters:
        if sources[name] is None:
            raise PrunecalError(
                f"{folder}: transformers computes the parameter {cut(name)} from other tensors of "
                "the checkpoint, which is not supported; use another model"
            )
    size = sum(value.numel() * value.element_size() for value in parameters.values())
    devices.refuse_too_large(f"{folder}: the weights", size, device)
    for name, value in values:
        if source := sources[name]:
            value.data = _read(stored[source], source, device, value.dtype)
            if not value.isfinite().all():
                raise PrunecalError(
                    f"{folder}: the tensor {cut(name)} holds NaN or infinity; download or convert "
                    "the checkpoint again"
                )


def _read(stored: Stored, name: str, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor on the device; its file is closed at once, so that its pages are free."""
    from safetensors import safe_open

    with readable(stored.path, "tensors"), safe_open(stored.path, framework="pt") as file:
        return file.get_tensor(name).to(device, dtype, copy=True)


@contextlib.contextmanager
def readable(
    folder: Path,
    part: str,
    fault: str = "cannot be read",
    remedy: str = "download or convert the model again",
) -> Iterator[None]:
    """Name a part of a model that a library cannot read, whatever it raises.

    Raises:
        PrunecalError: names the folder, the part and the library's reason.
    """
    try:
        yield
    except (PrunecalError, MemoryError):
        raise
    except Exception as error:
        if disk_errors.fault(error) is not None or _is_out_of_memory(error):
            raise
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise PrunecalError(f"{folder}: the {part} {fault} ({cut(reason)}); {remedy}") from error


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def _stored_tensors(folder: Path, config: PretrainedConfig) -> dict[str, Stored]:
    """Return the tensors of a folder by name.

    Float32 is taken whatever the config states: casting it loses no more than the study asks for.

    Raises:
        PrunecalError: a tensor is stored twice, or in another precision than the config states.
    """
    stated = _name(config.dtype)
    fit = {"F32", DTYPES[stated]} if stated in DTYPES else set(DTYPES.values())
    stored: dict[str, Stored] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in _tensors(path):
            if name in stored:  # which of the two would be taken is the library's choice
                raise PrunecalError(
                    f"{path} stores the tensor {cut(name)}, which {stored[name].path.name} has "
                    "too; keep the files of one export alone"
                )
            stored[name] = tensor
            if tensor.kind not in fit and not name.endswith(BUFFERS):
                known = tensor.kind in DTYPES.values()
                kinds = ", ".join(DTYPES.values())
                expected = f"config.json states {stated}" if known else f"supported are {kinds}"
                raise PrunecalError(
                    f"{path} stores the tensor {cut(name)} as {tensor.kind}, but {expected}; give "
                    "the original weights with their own config.json"
                )
    return stored


def refuse_unknown_decoder(
    kind: type[PreTrainedModel], folder: Path, config: PretrainedConfig, text: str
) -> None:
    """Refuse a language model that the engine would not compute exactly, by its configuration.

    Args:
        kind: the model's class in transformers.
        folder: the model's, for messages.
        config: the folder's configuration.
        text: name of the text model within the model.

    Raises:
        PrunecalError: names the part or setting that the engine does not know.
    """
    import torch

    from prunecal.engine import stacks

    with readable(folder, "configuration"), torch.device("meta"):
        model = kind(config)
    stacks.refuse_unknown(model.get_submodule(text), model.lm_head)


def _refuse_far_larger(kind: type[PreTrainedModel], folder: Path, config: PretrainedConfig) -> None:
    """Refuse a config of a much larger model, which would fill the memory before it is compared.

    A config without sizes has the defaults of its class, those of a model with billions of weights.
    """
    import torch

    with readable(folder, "configuration"), torch.device("meta"):
        expected = sum(parameter.numel() for parameter in kind(config).parameters())
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))  # bytes
    if expected > stored:
        raise PrunecalError(
            f"{folder}: config.json describes a model of {expected:,} parameters, but its weights "
            f"are {stored:,} bytes; give the weights their own config.json"
        )


def _tensors(path: Path) -> list[tuple[str, Stored]]:
    """Return the names of a safetensors file's tensors with what its header says of them."""
    from safetensors import safe_open

    with readable(path, "tensors"), safe_open(path, framework="numpy") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return [
            (name, Stored(path, part.get_dtype(), part.get_shape()))
            for name, part in slices.items()
        ]


def _name(dtype: torch.dtype | str | Any) -> str:
    return str(dtype).removeprefix("torch.")
