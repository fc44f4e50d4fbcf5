import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from prunecal.core.errors import PrunecalError
from prunecal.engine import device

# a stand-in for torch, whose import is slow: only what `pick` asks of it
PICK = """
import sys
from collections import namedtuple
from types import SimpleNamespace

Device = namedtuple("Device", ["type", "index"])
sys.modules["torch"] = SimpleNamespace(
    __version__="2.13.0+cu130",
    version=SimpleNamespace(cuda="13.0", hip=None),
    cuda=SimpleNamespace(
        init=lambda: None,
        device_count=lambda: int(sys.argv[1]),
        set_device=lambda device: None,
        get_device_name=lambda device: "Stand-in",
        mem_get_info=lambda device: (0, 0),
    ),
    ones=lambda *shape, device: SimpleNamespace(sum=lambda: SimpleNamespace(item=lambda: 0)),
    backends=SimpleNamespace(
        cuda=SimpleNamespace(matmul=SimpleNamespace()), cudnn=SimpleNamespace()
    ),
    device=lambda type, index: Device(type, index),
    set_num_threads=lambda threads: None,
    set_flush_denormal=lambda flush: None,
)
from prunecal.engine import device

print(device.pick("auto", 1).index, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def locks(tmp_path, monkeypatch):
    """Keep this process's locks in a folder of the test, and let them go at its end."""
    held = []
    monkeypatch.setattr(device.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(device, "_held", held)
    yield held
    for file in held:
        os.close(file)


@pytest.fixture
def settings_kept():
    """Put back what `pick` sets for a whole process."""
    threads = torch.get_num_threads()
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32


class Job:
    """A process that picks one of some pretended GPUs and holds it until it is ended."""

    def __init__(self, folder, count, visible=""):
        self.process = subprocess.Popen(
            [sys.executable, "-c", PICK, str(count)],
            cwd=Path(device.__file__).parents[2],
            env={**os.environ, "TMPDIR": str(folder), "CUDA_VISIBLE_DEVICES": visible},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def picked(self):
        return self.process.stdout.readline().strip()

    def end(self):
        self.process.kill()
        self.process.communicate()


def test_jobs_on_one_host_get_distinct_gpus_and_a_dead_jobs_gpu_is_free(tmp_path):
    one = Job(tmp_path, 2, visible="MIG-GPU-1/7/0,1")  # a name that is no file's name
    first = one.picked()
    two = Job(tmp_path, 2, visible="MIG-GPU-1/7/0,1")
    second = two.picked()
    one.end()
    three = Job(tmp_path, 2, visible="MIG-GPU-1/7/0,1")
    third = three.picked()
    two.end()
    three.end()
    assert (first, second, third) == ("0", "1", "0")


@pytest.fixture
def shared():
    """Return a folder as /tmp is; pytest's own are for their owner alone."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root can become other users")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_jobs_of_two_users_get_distinct_gpus(shared, locks, monkeypatch, umask):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(device.tempfile, "gettempdir", lambda: str(shared))
    before, devices = os.umask(umask), []
    try:
        for user in (12001, 12002, 12001):
            os.seteuid(user)
            devices.append(device._free_device(2))
            os.seteuid(0)
    finally:
        os.seteuid(0)
        os.umask(before)
    assert devices == [0, 1, os.getpid() % 2]


def test_a_lock_file_that_is_a_link_is_not_followed(locks, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    target = tmp_path / "victim"
    (tmp_path / "prunecal-gpu--0.lock").symlink_to(target)
    assert device._free_device(1) == os.getpid() % 1
    assert not target.exists()


def test_more_jobs_than_gpus_share_them(locks, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = [device._free_device(2) for _ in range(3)]  # each opens the lock anew
    assert found[:2] == [0, 1]
    assert found[2] == os.getpid() % 2


def test_jobs_that_see_other_gpus_do_not_wait_for_each_other(locks, monkeypatch):
    for visible in ("3", "5"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert device._free_device(1) == 0
    assert len(locks) == 2


@pytest.mark.parametrize("wanted", ["auto", "cpu"])
def test_without_a_gpu_the_cpu_is_taken_with_the_threads_asked_for(
    monkeypatch, settings_kept, said, wanted
):
    monkeypatch.setattr(device, "why_no_gpu", lambda: "there is none")
    assert device.pick(wanted, 1) == torch.device("cpu")
    assert torch.get_num_threads() == 1
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert device.name(torch.device("cpu")) == "cpu"
    reason = "there is none" if wanted == "auto" else "the settings say so"
    assert said == [f"device: the CPU (threads: 1), because {reason}"]


def test_the_cpu_is_taken_if_asked_for_although_there_are_gpus(monkeypatch, settings_kept):
    monkeypatch.setattr(device, "why_no_gpu", lambda: None)
    assert device.pick("cpu", 2) == torch.device("cpu")


@pytest.fixture
def said(monkeypatch):
    """Collect what is logged at INFO."""
    lines = []
    monkeypatch.setattr(device.log, "info", lambda text, *values: lines.append(text % values))
    return lines


@pytest.fixture
def machine(monkeypatch):
    """Return a function that pretends a build of torch with CUDA on a machine with GPUs."""

    def pretend(*, cuda="13.0", visible=None, init=None, count=1, kernel=None, free=80e9):
        def fail(error):
            if error:
                raise RuntimeError(error)

        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.version, "hip", None)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        monkeypatch.setattr(torch.cuda, "init", lambda: fail(init))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100")
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (int(free), int(80e9)))
        ones = torch.ones
        monkeypatch.setattr(torch, "ones", lambda *shape, **_: fail(kernel) or ones(*shape))

    return pretend


TOO_OLD = (  # torch's own words
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU "
    "driver by downloading and installing a new version from the URL: ..."
)
NO_GPU = {
    r"this PyTorch \(\d.*\) is a build for the CPU alone": {"cuda": None},
    "CUDA_VISIBLE_DEVICES is '', which hides every GPU": {"visible": ""},
    "CUDA_VISIBLE_DEVICES is '-1', which hides": {"visible": "-1"},
    r"driver \(for CUDA 11.4 at most\) is too old for this PyTorch \(.*, CUDA 13.0\)": {
        "init": TOO_OLD
    },
    "this machine has no NVIDIA driver": {"init": "Found no NVIDIA driver on your system."},
    r"CUDA does not start \(No CUDA GPUs are available\)": {"init": "No CUDA GPUs are available"},
    "PyTorch sees no GPU": {"count": 0},
}


@pytest.mark.parametrize("reason", NO_GPU)
def test_a_study_that_asks_for_a_gpu_is_told_why_it_gets_none(
    machine, settings_kept, locks, said, reason
):
    machine(**NO_GPU[reason])
    with pytest.raises(PrunecalError, match=f"asks for a GPU .*, but .*{reason}"):
        device.pick("cuda", 1)
    assert device.pick("auto", 1) == torch.device("cpu")  # which the log explains
    assert len(said) == 1
    assert re.search(f"device: the CPU .*, because .*{reason}", said[0])


def test_a_gpu_is_the_first_thing_in_the_log(machine, settings_kept, locks, said):
    machine(free=42e9)
    assert device.pick("auto", 1) == torch.device("cuda", 0)
    assert said == [
        f"device: NVIDIA H100 (cuda:0), 42.0 of 80.0 GB free, torch {torch.__version__}"
    ]


def test_a_gpu_that_runs_no_kernel_of_this_torch_is_named(machine, settings_kept, locks):
    machine(kernel="CUDA error: no kernel image is available for execution on the device\nmore")
    with pytest.raises(PrunecalError, match=r"NVIDIA H100 cannot be used \(CUDA error: no kernel"):
        device.pick("auto", 1)


def test_weights_that_do_not_fit_the_gpu_are_refused_with_both_sizes(machine):
    machine(free=10e9)
    gpu = torch.device("cuda", 0)
    device.refuse_too_large("the weights", int(10e9), gpu)
    with pytest.raises(PrunecalError, match=r"need 14.1 GB, but NVIDIA H100 has 10.0 of 80.0 GB"):
        device.refuse_too_large("the weights", int(14.1e9), gpu)
