"""A real SLURM on loopback: a controller and two nodes with two made-up GPUs each.

No systemd, no munge, no database; everything lies in one folder. It ends with the process that
started it: each daemon asks the kernel for a SIGTERM when its parent dies.
"""

import contextlib
import ctypes
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

NODES = ("n1", "n2")
PROGRAMS = ("srun", "sbatch", "squeue", "scancel", "sinfo", "scontrol", "sacct", "sacctmgr")
SETTINGS = """\
ClusterName=prunecal
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
PropagateResourceLimits=NONE
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=1
PriorityType=priority/basic
SlurmdParameters=config_overrides
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ReturnToService=2
JobRequeue=0
SlurmctldTimeout=10
SlurmdTimeout=10
InactiveLimit=0
KillWait=3
MinJobAge=3600
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
MailProg=/bin/true
GresTypes=gpu
"""


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> object:
    """Return the first true value of a condition; fail loudly after a time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.1)
    return value


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


class Cluster:
    """A running SLURM; `environment` lets other programs use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen] = {}
        self._configure()

    @property
    def environment(self) -> dict[str, str]:
        """Environment in which sbatch, squeue and the like speak to this cluster."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
        return kept | {"PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def call(self, *command: str) -> str:
        """Run one of SLURM's programs and return what it says."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout.strip()

    def jobs(self, *states: str) -> list[str]:
        """List the ids of jobs in these states, all known jobs without a state."""
        wanted = ["--states", ",".join(states or ("all",))]
        return self.call("squeue", "--noheader", "--format=%i", *wanted).split()

    def facts(self, job: str) -> dict[str, str]:
        """Return what SLURM knows of a job."""
        words = self.call("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def times(self, job: str) -> tuple[datetime, datetime]:
        """Return when a job that has ended started and ended, to the second."""
        facts = self.facts(job)
        return datetime.fromisoformat(facts["StartTime"]), datetime.fromisoformat(facts["EndTime"])

    def start(self) -> None:
        """Start the controller and all nodes, and wait until they are ready."""
        self._spawn("slurmctld", "-D")
        for node in NODES:
            self.start_node(node)

    def start_node(self, node: str, hidden: Path | None = None) -> None:
        """Start a node and wait until it takes jobs; it sees nothing in the hidden folder."""
        (self.folder / f"spool.{node}").mkdir(exist_ok=True)
        self._spawn("slurmd", "-D", "-N", node, name=node, hidden=hidden)
        wait_for(lambda: self._state(node) == "idle", 60, f"{node} to be idle{self._logs()}")

    def kill_node(self, node: str) -> None:
        """Kill a node's daemon without warning; its jobs' processes go on."""
        self.processes[node].kill()
        self.processes.pop(node).wait()

    def stop(self) -> None:
        """Cancel all jobs and end all daemons."""
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self.call("scancel", "--user", getpass.getuser())
            wait_for(lambda: not self.jobs("RUNNING", "COMPLETING"), 10, "jobs to end")
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _state(self, node: str) -> str:
        done = subprocess.run(
            ["sinfo", "--noheader", "--Node", f"--nodes={node}", "--format=%T"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,  # the controller may not listen yet
        )
        return done.stdout.strip()

    def _logs(self) -> str:
        return f"; see {self.folder}/*.log"

    def _spawn(
        self, program: str, *arguments: str, name: str | None = None, hidden: Path | None = None
    ) -> None:
        path = f"{os.environ['PATH']}{os.pathsep}/usr/sbin"
        command = [shutil.which(program, path=path), *arguments, "-f", self.folder / "slurm.conf"]
        if hidden:  # an empty file system over it, in a mount namespace of the daemon's own
            cover = 'mount -t tmpfs tmpfs "$0" && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", cover, hidden, *command]
        with (self.folder / f"{name or program}.log").open("ab") as log:
            self.processes[name or program] = subprocess.Popen(
                command,
                env=self.environment | {"SLURM_CONF": str(self.folder / "slurm.conf")},
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_parent,
            )

    def _configure(self) -> None:
        for name in ("state", "bin", "devices"):
            (self.folder / name).mkdir(parents=True)
        host, (port, *ports) = socket.gethostname().split(".")[0], _free_ports(1 + len(NODES))
        settings = SETTINGS.format(host=host, port=port, user=getpass.getuser(), folder=self.folder)
        gpus = []
        for number in range(2):  # a link to a device: SLURM refuses ordinary files
            (self.folder / "devices" / f"gpu{number}").symlink_to("/dev/null")
        for node, its_port in zip(NODES, ports, strict=True):
            settings += (
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={its_port} "
                "CPUs=6 RealMemory=20000 Gres=gpu:2\n"
            )
            gpus.append(f"NodeName={node} Name=gpu File={self.folder}/devices/gpu[0-1]\n")
        settings += "PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n"
        (self.folder / "slurm.conf").write_text(settings)
        (self.folder / "gres.conf").write_text("".join(gpus))
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        # the plugin drops SLURM_CONF inside jobs, PATH it leaves alone
        for program in PROGRAMS:
            wrapper = self.folder / "bin" / program
            conf = self.folder / "slurm.conf"
            wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={conf} exec /usr/bin/{program} "$@"\n')
            wrapper.chmod(0o755)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """Run a cluster while the block runs."""
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
