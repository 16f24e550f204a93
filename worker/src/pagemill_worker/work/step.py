"""The work step of a job: a pool of engine processes and a session over some shards.

Layer: `worker.work`, its top. Used by a pod for its index and by `pagemill run` for everything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import IO, Any

from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.records import Marker, PlanPointer, UsageRecord
from pagemill_core.work.usage import put_usage
from pagemill_worker.environment import JobEnvironment
from pagemill_worker.finalize.committed import CommittedRun
from pagemill_worker.machine import host_memory_bytes, machine
from pagemill_worker.metrics import WorkerMetrics
from pagemill_worker.work.pool import Answer, Pool
from pagemill_worker.work.session import Hooks, Session, SessionResult, SessionSettings

USAGE_EVERY_S = 60.0
USAGE_EVERY_WITH_API_S = 10.0
MEMORY_SHARE = 0.9  # of the cgroup's memory for the children; the supervisor needs the rest


@dataclass(frozen=True, slots=True)
class WorkOptions:
    """What the caller decides: processes, who the worker is, where children's standard error goes.

    `environment` is the process's own, which only a `main` reads. `planned` are the fingerprint's fields where there is
    a plan already: what was decided then holds, whatever this machine would decide.
    """

    processes: int
    worker: str
    environment: Mapping[str, str]
    stderr: IO[bytes] | None = None
    memory_bytes: int | None = None
    partial_every_s: float = 30.0
    memory_rung: int = 0
    can_have_more_memory: bool = False
    planned: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listeners:
    """What the caller hears and says while work goes on."""

    progress: Callable[[Answer], None] = lambda _: None
    committed: Callable[[Marker], None] = lambda _: None
    should_stop: Callable[[], bool] = lambda: False
    metrics: WorkerMetrics = field(default_factory=WorkerMetrics)


def default_processes() -> int:
    """One process a core of this cgroup: N processes of one thread beat one process of N."""
    return machine().cores


def memory_per_process(processes: int) -> int:
    """The memory at which a child is killed before the kernel would kill the whole group, bytes."""
    limit = machine().memory_bytes or host_memory_bytes()
    return int(limit * MEMORY_SHARE / processes)


class UsageClock:
    """Reports what this process uses, from its start to its end, in one object of its own."""

    def __init__(self, writer: Writer, layout: RunLayout, environment: JobEnvironment, pod: str) -> None:
        self._writer = writer
        self._layout = layout
        self._environment = environment
        self._pod = pod
        self._started = time.monotonic()
        self._written = self._started
        self._api_cost = Decimal(0)
        self._lock = threading.Lock()

    def add_api_cost(self, cost: float) -> None:
        with self._lock:
            self._api_cost += Decimal(str(cost))

    @property
    def record(self) -> UsageRecord:
        """What was used so far."""
        return UsageRecord(
            pod=self._pod,
            pool=self._environment.pool,
            price_per_hour=self._environment.price_per_hour,
            seconds=round(time.monotonic() - self._started, 3),
            api_cost=str(self._api_cost),
        )

    def write_if_due(self) -> None:
        """Write the record every 60 s, every 10 s once an API was paid."""
        every = USAGE_EVERY_WITH_API_S if self._api_cost else USAGE_EVERY_S
        if time.monotonic() - self._written >= every:
            self.write()

    def write(self) -> None:
        self._written = time.monotonic()
        put_usage(self._writer, self._layout, self.record)


def work_step(
    kind: CommittedRun, pool: Pool, shards: Iterable[int], options: WorkOptions, listeners: Listeners
) -> SessionResult:
    """Do `shards`, those that are done excepted, with a pool that is closed afterwards; it may be running already.

    Raises: as `Session.run`, and as `Pool.poll`.
    """
    pointer: PlanPointer = kind.pointer
    settings = SessionSettings(
        worker=options.worker,
        plan=pointer.attempt,
        fingerprint=pointer.fingerprint,
        partial_every_s=options.partial_every_s,
        max_deaths=pool.settings.max_deaths,
        memory_rung=options.memory_rung,
        can_have_more_memory=options.can_have_more_memory,
    )
    hooks = Hooks(
        items=kind.items,
        views=lambda _, results: kind.views_of(results),
        progress=listeners.progress,
        committed=listeners.committed,
        should_stop=listeners.should_stop,
        metrics=listeners.metrics,
    )
    listeners.metrics.name_stages(pool.settings.stages)
    with pool as running:
        return Session(kind.writer, kind.layout, running, settings, hooks).run(shards)
