"""What the processes of a pool use and what waits in them, as one picture for the metrics.

Layer: `worker.work`, below `pool`; reads /proc only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pagemill_worker.machine import cpu_seconds, rss_bytes


@dataclass(frozen=True, slots=True)
class ChildState:
    """One process. `waiting` items are not begun, `prepared` ones wait for the model; `told` is what it says itself."""

    pid: int
    waiting: int
    prepared: int
    told: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PoolUsage:
    """All processes together. `cpu_by_pid` are seconds of processor time since each one's start."""

    waiting: int = 0
    prepared: int = 0
    prepare_threads: int = 0
    model_threads: int = 0
    resident_bytes: int = 0
    gpu_bytes: int = 0
    cpu_by_pid: Mapping[int, float] | None = None


def usage_of(children: Iterable[ChildState]) -> PoolUsage:
    """Look at the processes now."""
    found = list(children)
    return PoolUsage(
        waiting=sum(child.waiting for child in found),
        prepared=sum(child.prepared for child in found),
        prepare_threads=sum(int(child.told.get("prepareThreads", 0)) for child in found),
        model_threads=sum(int(child.told.get("modelThreads", 0)) for child in found),
        resident_bytes=sum(rss_bytes(child.pid) for child in found),
        gpu_bytes=sum(int(child.told.get("gpuBytes", 0)) for child in found),
        cpu_by_pid={child.pid: cpu_seconds(child.pid) for child in found},
    )
