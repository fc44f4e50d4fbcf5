import os
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
from types import SimpleNamespace

sys.modules["torch"] = SimpleNamespace(
    cuda=SimpleNamespace(device_count=lambda: int(sys.argv[1]), set_device=lambda device: None),
    backends=SimpleNamespace(
        cuda=SimpleNamespace(matmul=SimpleNamespace()), cudnn=SimpleNamespace()
    ),
    device=lambda kind, index: f"{kind}:{index}",
    set_num_threads=lambda threads: None,
    set_flush_denormal=lambda flush: None,
)
from prunecal.engine import device

print(device.pick("auto", 1), flush=True)
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
    assert (first, second, third) == ("cuda:0", "cuda:1", "cuda:0")


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
    monkeypatch, settings_kept, wanted
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert device.pick(wanted, 1) == torch.device("cpu")
    assert torch.get_num_threads() == 1
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert device.name(torch.device("cpu")) == "cpu"


def test_the_cpu_is_taken_if_asked_for_although_there_are_gpus(monkeypatch, settings_kept):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert device.pick("cpu", 2) == torch.device("cpu")


def test_a_gpu_that_is_not_there_is_said(monkeypatch, settings_kept):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(PrunecalError, match="is cuda but PyTorch sees no GPU; set it to auto or"):
        device.pick("cuda", 1)
