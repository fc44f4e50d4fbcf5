"""The device that a job computes on."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from prunecal.core.errors import PrunecalError

if TYPE_CHECKING:
    import torch

_held: list[int] = []  # open lock files: a GPU is reserved until the process ends


def pick(setting: str, threads: int) -> torch.device:
    """Return the device to run on, and limit PyTorch to `threads` CPU threads.

    Jobs on one host, of all its users, get distinct GPUs if there are enough: each locks the first
    free one until its process ends, by whatever cause. (A cluster assigns GPUs through
    CUDA_VISIBLE_DEVICES.)

    Args:
        setting: "cpu", "cuda", or "auto" for a GPU if there is one.
        threads: CPU threads; set by the config so that the order of summation is fixed.

    Raises:
        PrunecalError: the setting is "cuda" and PyTorch sees no GPU.
    """
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False  # the patch embedding is a convolution
    count = torch.cuda.device_count()
    if setting == "cpu" or (setting == "auto" and not count):
        return torch.device("cpu")
    if not count:
        raise PrunecalError(
            "inference.device is cuda but PyTorch sees no GPU; set it to auto or cpu, or ask the "
            "scheduler for one (inference.gpus_per_job)"
        )
    device = torch.device("cuda", _free_device(count))
    torch.cuda.set_device(device)
    return device


def name(device: torch.device) -> str:
    """Return the device's name for provenance."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


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
