"""The device that a job computes on."""

from __future__ import annotations

import fcntl
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from prunecal.core.cli import log
from prunecal.core.errors import PrunecalError, cut
from prunecal.core.host import Memory, main_memory

if TYPE_CHECKING:
    import torch

GIGABYTE = 1e9
MEGABYTE = 2**20
HIDES_ALL = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES
_held: list[int] = []  # open lock files: a GPU is reserved until the process ends


def pick(setting: str, threads: int) -> torch.device:
    """Return the device to run on, log it, and limit PyTorch to `threads` CPU threads.

    Jobs on one host, of all its users, get distinct GPUs if there are enough: each locks the first
    free one until its process ends, by whatever cause. (A cluster assigns GPUs through
    CUDA_VISIBLE_DEVICES.)

    Args:
        setting: "cpu", "cuda", or "auto" for a GPU if there is one.
        threads: CPU threads; set by the config so that the order of summation is fixed.

    Raises:
        PrunecalError: the setting is "cuda" and PyTorch can use no GPU, or it cannot use the one
            that it sees.
    """
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False  # the patch embedding is a convolution
    reason = "the settings say so" if setting == "cpu" else why_no_gpu()
    if reason is None:
        device = torch.device("cuda", _free_device(torch.cuda.device_count()))
        torch.cuda.set_device(device)
        _refuse_unusable(device)
    elif setting == "cuda":
        raise PrunecalError(
            f"the study asks for a GPU (inference.device or gpus_per_job), but {reason}, or set "
            "`inference: {device: cpu}`"
        )
    else:
        device = torch.device("cpu")
        log.info("device: the CPU (threads: %d), because %s", threads, reason)
    return device


def why_no_gpu() -> str | None:
    """Return why PyTorch can use no GPU, with what to do about it; None if it can use one."""
    import torch

    if not (torch.version.cuda or torch.version.hip):
        return (
            f"this PyTorch ({torch.__version__}) is a build for the CPU alone: install one with "
            "CUDA (see envs/README.md)"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in HIDES_ALL:
        return (
            f"CUDA_VISIBLE_DEVICES is {visible!r}, which hides every GPU: unset it, ask the "
            "scheduler for a GPU"
        )
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        if "too old" in reason:
            version = re.search(r"found version (\d+)", reason)
            newest = f" (for CUDA {_version(int(version[1]))} at most)" if version else ""
            return (
                f"the NVIDIA driver{newest} is too old for this PyTorch ({torch.__version__}, CUDA "
                f"{torch.version.cuda}): update the driver, install a PyTorch for an older CUDA"
            )
        if "no NVIDIA driver" in reason:
            return "this machine has no NVIDIA driver: install it, use a machine with a GPU"
        return f"CUDA does not start ({cut(reason)}): correct what `nvidia-smi` reports"
    if not torch.cuda.device_count():
        return "PyTorch sees no GPU: correct what `nvidia-smi` reports"
    return None


def _version(number: int) -> str:
    """Return a version of CUDA as it is written, 12.4 for 12040."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _refuse_unusable(device: torch.device) -> None:
    """Log a GPU, or say why no kernel runs on it: it is too old or new for PyTorch, or it is full.

    Raises:
        PrunecalError: names the GPU and the library's reason.
    """
    import torch

    try:
        torch.ones(2, device=device).sum().item()
        memory = device_memory(device)
    except RuntimeError as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise PrunecalError(
            f"{name(device)} cannot be used ({cut(reason)}); use another GPU or another build of "
            "PyTorch, or end the processes that hold it"
        ) from error
    log.info(
        "device: %s (%s), %.1f of %.1f GB free, torch %s",
        name(device),
        device,
        memory.free / GIGABYTE,
        memory.total / GIGABYTE,
        torch.__version__,
    )


def device_memory(device: torch.device) -> Memory:
    """Return the memory of a GPU, or the main memory for the CPU."""
    import torch

    if device.type == "cuda":
        return Memory(*torch.cuda.mem_get_info(device))
    return main_memory() or Memory(sys.maxsize, sys.maxsize)


def all_gpu_memory() -> list[Memory]:
    """Return the memory of each GPU that PyTorch sees; there is one if `why_no_gpu` says None."""
    import torch

    return [device_memory(torch.device("cuda", at)) for at in range(torch.cuda.device_count())]


def refuse_too_large(what: str, size: int, device: torch.device) -> None:
    """Refuse what will not fit into the device's free memory.

    Args:
        what: the beginning of the message, for example "the weights".
        size: in bytes.
        device: where it would go.

    Raises:
        PrunecalError: names both sizes.
    """
    memory = device_memory(device)
    if size > memory.free:
        place, remedy = (
            ("main memory", "a machine with more memory")
            if device.type == "cpu"
            else (name(device), "a larger GPU")
        )
        raise PrunecalError(
            f"{what} need {size / GIGABYTE:.1f} GB, but {place} has {memory.free / GIGABYTE:.1f} "
            f"of {memory.total / GIGABYTE:.1f} GB free; use {remedy} or a narrower dtype, or end "
            "the processes that hold the memory"
        )


def name(device: torch.device) -> str:
    """Return the device's name for provenance."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def peak_memory_mb(device: torch.device) -> int | None:
    """Return the most megabytes of a GPU that tensors took at once; None for the CPU."""
    import torch

    if device.type == "cpu":
        return None
    return torch.cuda.max_memory_allocated(device) // MEGABYTE


def send(tensor: torch.Tensor, where: torch.device) -> torch.Tensor:
    """Return a tensor on the device; the copy to a GPU overlaps with earlier work."""
    if where.type == "cuda":
        tensor = tensor.contiguous().pin_memory()  # else the copy blocks
    return tensor.to(where, non_blocking=True)


def _free_device(count: int) -> int:
    """Lock and return the first GPU that no other job holds; if all are held, share one."""
    seen = re.sub(r"[^\w,-]", "_", os.environ.get("CUDA_VISIBLE_DEVICES", ""))  # MIG has /
    for index in range(count):
        file = _opened(Path(tempfile.gettempdir(), f"prunecal-gpu-{seen}-{index}.lock"))
        if file is None:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            continue
        _held.append(file)
        return index
    return os.getpid() % count


def _opened(path: Path) -> int | None:
    """Open a lock file that all users of a host share; None if its owner denies reading it."""
    for flags in (0, os.O_CREAT | os.O_EXCL, 0):  # the last if another job has just made it
        try:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o444)
        except (FileNotFoundError, FileExistsError):
            continue
        except OSError:
            return None
        if flags:
            os.fchmod(file, 0o444)  # whatever the umask: an empty file, that others lock as well
        return file
    return None
