"""Load checkpoints in the Hub's layout so that a model has the checkpoint's weights and no others.

Transformers initialises at random what a checkpoint lacks, leaves out what the model does not know,
and casts every tensor to the type it is asked for, each with no more than a warning.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from prunecal.core import disk_errors
from prunecal.core.errors import PrunecalError, cut

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch
    from transformers import PretrainedConfig, PreTrainedModel

DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}  # of torch and of safetensors
BUFFERS = (".position_ids", ".rotary_emb.inv_freq")  # in older exports; the model computes them
FAULTS = {  # of transformers' loading info
    "missing_keys": "lacks the tensor",
    "mismatched_keys": "has another shape than the model for the tensor",
    "unexpected_keys": "has a tensor that the model does not have:",
}


def load_weights(
    kind: type[PreTrainedModel], folder: Path, config: PretrainedConfig, dtype: str
) -> PreTrainedModel:
    """Return a model with the weights of a folder, on the CPU and in evaluation mode.

    Args:
        kind: the model's class in transformers.
        folder: safetensors in the Hub's layout.
        config: the folder's configuration.
        dtype: "float32", "float16" or "bfloat16", to which the weights are cast.

    Raises:
        PrunecalError: a tensor of the model is missing or has another shape, the folder has a
            tensor that the model does not have, that is there twice, of an unfit type or not
            finite, or it cannot be read.
    """
    import torch

    _refuse_unfit_tensors(folder, config)
    _refuse_far_larger(kind, folder, config)
    with readable(folder, "weights"):
        model, info = kind.from_pretrained(
            folder,
            config=config,
            dtype=getattr(torch, dtype),
            attn_implementation="sdpa",
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are in the loading info, with their names
            output_loading_info=True,
        )
    for key, fault in FAULTS.items():
        names = sorted(name if isinstance(name, str) else name[0] for name in info[key])
        names = [name for name in names if not name.endswith(BUFFERS)]
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise PrunecalError(
                f"{folder}: the checkpoint {fault} {cut(names[0])}{more}; download or convert it "
                "again, with a config.json that fits its weights"
            )
    for name, tensor in model.named_parameters():
        if not tensor.isfinite().all():
            raise PrunecalError(
                f"{folder}: the tensor {cut(name)} holds NaN or infinity; download or convert the "
                "checkpoint again"
            )
    return model.eval()


@contextlib.contextmanager
def readable(folder: Path, part: str) -> Iterator[None]:
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
        raise PrunecalError(
            f"{folder}: the {part} cannot be read ({cut(reason)}); download or convert the "
            "model again"
        ) from error


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def _refuse_unfit_tensors(folder: Path, config: PretrainedConfig) -> None:
    """Refuse a tensor that is stored twice, or in another precision than the config states.

    Float32 is taken whatever the config states: casting it loses no more than the study asks for.
    """
    stated = _name(config.dtype)
    fit = {"F32", DTYPES[stated]} if stated in DTYPES else set(DTYPES.values())
    stored: dict[str, str] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, kind in tensor_types(path).items():
            if name in stored:  # which of the two would be taken is the library's choice
                raise PrunecalError(
                    f"{path} stores the tensor {cut(name)}, which {stored[name]} has too; keep the "
                    "files of one export alone"
                )
            stored[name] = path.name
            if kind not in fit and not name.endswith(BUFFERS):
                known = kind in DTYPES.values()
                expected = f"config.json states {stated}" if known else "only floats are supported"
                raise PrunecalError(
                    f"{path} stores the tensor {cut(name)} as {kind}, but {expected}; give the "
                    "original weights with their own config.json"
                )


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


def tensor_types(path: Path) -> dict[str, str]:
    """Return the names of a safetensors file's tensors and their types, for example "F16"."""
    from safetensors import safe_open

    with readable(path, "tensors"), safe_open(path, framework="numpy") as file:
        return {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118


def _name(dtype: torch.dtype | str | Any) -> str:
    return str(dtype).removeprefix("torch.")
