"""Main memory that this process may use: the machine's, or what a container or job leaves of it."""

import os
from pathlib import Path
from typing import NamedTuple

CGROUPS = Path("/sys/fs/cgroup")
MEMORY_INFO = Path("/proc/meminfo")
OWN_GROUPS = Path("/proc/self/cgroup")


class Memory(NamedTuple):
    """Bytes of memory."""

    free: int
    total: int


def main_memory() -> Memory | None:
    """Return the main memory; None where the system does not say."""
    try:
        lines = MEMORY_INFO.read_text(encoding="ascii").splitlines()
    except OSError:
        try:
            size, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
        except (OSError, ValueError):
            return None
        return Memory(size * pages, size * pages)
    values = {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    machine = Memory(values["MemAvailable"], values["MemTotal"])
    limits = [machine, *_limits()]
    return Memory(min(limit.free for limit in limits), min(limit.total for limit in limits))


def _limits() -> list[Memory]:
    """Return the limits of the control groups that this process is in, and of those around them."""
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, own = line.split(":", 2)
        first = "memory" in controllers.split(",")  # of version 1, else all are in one tree
        if controllers and not first:
            continue
        root = CGROUPS / "memory" if first else CGROUPS
        names = ("limit_in_bytes", "usage_in_bytes") if first else ("max", "current")
        folder = root / own.lstrip("/")
        groups = [group for group in (folder, *folder.parents) if group.is_relative_to(root)]
        found += [limit for group in groups if (limit := _limit(group, *names))]
    return found


def _limit(group: Path, most: str, used: str) -> Memory | None:
    try:
        total = int((group / f"memory.{most}").read_text())
        usage = int((group / f"memory.{used}").read_text())
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None  # "max", or no such file
    cached = sum(int(statistics.get(f"{kind}_file", 0)) for kind in ("active", "inactive"))
    return Memory(total - max(usage - cached, 0), total)
