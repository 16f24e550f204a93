"""What this process may use: cores and memory of its cgroup, never the host's, and what other processes use.

Layer: the bottom of the worker; reads /proc and /sys/fs/cgroup only. Paths are parameters so that tests can show
other machines.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
UNLIMITED_BYTES = 1 << 60  # cgroup v1 says "no limit" with a number close to 2^63


@dataclass(frozen=True, slots=True)
class Machine:
    """Cores (at least 1) and memory in bytes (None: no limit below the host's own)."""

    cores: int
    memory_bytes: int | None


def machine(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> Machine:
    """The limits of this process's cgroup, v1 or v2, tightest ancestor first, and of its CPU affinity."""
    cores = float(len(os.sched_getaffinity(0)))
    memory: int | None = None
    for folder in _ancestors(root, membership):
        cores = min(cores, _cpu_quota(folder))
        limit = _memory_limit(folder)
        if limit is not None:
            memory = limit if memory is None else min(memory, limit)
    return Machine(max(1, math.floor(cores)), memory)


def host_memory_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """The host's memory in bytes."""
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{meminfo} has no MemTotal")


def rss_bytes(pid: int) -> int:
    """Resident bytes of one process, 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0


def gpu_names(environment: Mapping[str, str], devices: Path = Path("/dev")) -> tuple[str, ...]:
    """NVIDIA's GPUs that processes here may use, by the names that CUDA_VISIBLE_DEVICES takes; none without any."""
    given = environment.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return tuple(name for name in (part.strip() for part in given.split(",")) if name not in ("", "-1"))
    numbers = sorted(int(path.name.removeprefix("nvidia")) for path in devices.glob("nvidia[0-9]*"))
    return tuple(str(place) for place in range(len(numbers)))


def cpu_seconds(pid: int) -> float:
    """Seconds of processor time that one process has used, 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def boot_id() -> str:
    """An id that changes at every boot, so that a process number of an earlier one is not mistaken."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def process_started(pid: int) -> str:
    """When a process started, in clock ticks since boot as text; "" when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return stat.rpartition(")")[2].split()[19]


def _ancestors(root: Path, membership: Path) -> list[Path]:
    folders: list[Path] = []
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return folders
    for line in lines:
        _, controllers, path = line.split(":", 2)
        bases = [root] if not controllers else [root / name for name in controllers.split(",")] + [root / controllers]
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for base in bases:
            folders += [base.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    return folders


def _cpu_quota(folder: Path) -> float:
    quota = _numbers(folder / "cpu.max")
    if len(quota) == 2:
        return quota[0] / quota[1]
    v1_quota, v1_period = _numbers(folder / "cpu.cfs_quota_us"), _numbers(folder / "cpu.cfs_period_us")
    if v1_quota and v1_period and v1_quota[0] > 0:
        return v1_quota[0] / v1_period[0]
    return math.inf


def _memory_limit(folder: Path) -> int | None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        limit = _numbers(folder / name)
        if limit and limit[0] < UNLIMITED_BYTES:
            return int(limit[0])
    return None


def _numbers(path: Path) -> list[float]:
    try:
        return [float(word) for word in path.read_text().split()]
    except (OSError, ValueError):
        return []
