"""Putting the operator together: everything that is injected elsewhere is made here.

Layer: just below `main`. Makes objects, starts nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pagemill_core.clock import Clock
from pagemill_core.storage.open import SharedStores
from pagemill_core.storage.probe import probe
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.storage.store import ObjectStore
from pagemill_operator.apply import Applier
from pagemill_operator.cache import Cache
from pagemill_operator.cluster import Cluster
from pagemill_operator.controller import Controller, ControllerParts
from pagemill_operator.counted_store import CountedStore
from pagemill_operator.events import EventWriter
from pagemill_operator.health import Health
from pagemill_operator.metrics import Metrics
from pagemill_operator.objects import Key
from pagemill_operator.observe import Observer, ObserverParts
from pagemill_operator.queue import WorkQueue
from pagemill_operator.settings import Config, OperatorSettings
from pagemill_operator.status import StatusWriter
from pagemill_operator.store_poller import PollerParts, StorePoller, TaskRunner
from pagemill_operator.workloads import Workloads


class ThreadRunner:
    """A TaskRunner over a thread pool; what a call raises reaches `crashed`."""

    def __init__(self, threads: int, crashed: Callable[[BaseException], None]) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="store")
        self._crashed = crashed

    def start(self, call: Callable[[], None], then: Callable[[], None]) -> None:
        future = asyncio.get_running_loop().run_in_executor(self._pool, call)

        def done(ended: asyncio.Future[None]) -> None:
            error = None if ended.cancelled() else ended.exception()
            if error is not None:
                self._crashed(error)
            elif not ended.cancelled():
                then()

        future.add_done_callback(done)

    def close(self) -> None:
        """Let go without waiting: a store that hangs must not hold up the end; whatever was begun may be repeated."""
        self._pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class Surroundings:
    """What the operator lives in. `open_store` and `probe` are its way to outputs."""

    settings: OperatorSettings
    config: Config
    cluster: Cluster
    cluster_id: str
    clock: Clock
    metrics: Metrics
    runner: TaskRunner
    wake: Callable[[], None] = lambda: None
    open_store: Callable[[str, S3Settings], ObjectStore] = field(default_factory=lambda: SharedStores().open)
    probe: Callable[[ObjectStore], object] = probe


@dataclass(frozen=True)
class Parts:
    """The operator, ready to run."""

    controller: Controller
    cache: Cache
    queue: WorkQueue[Key]
    poller: StorePoller
    health: Health


def assemble(given: Surroundings) -> Parts:
    """Make the operator."""
    cache, queue = Cache(), WorkQueue[Key]()
    clock, cluster, metrics = given.clock, given.cluster, given.metrics
    workloads = Workloads(cluster, clock)

    def changed(key: Key) -> None:
        controller.store_answered(key)

    poller = _poller(given, cache, changed)
    controller = Controller(
        ControllerParts(
            cluster=cluster,
            cache=cache,
            queue=queue,
            poller=poller,
            observer=Observer(ObserverParts(cluster, cache, poller, given.config, clock, workloads)),
            applier=Applier(cluster, cache, clock, workloads),
            status=StatusWriter(cluster, clock),
            events=EventWriter(cluster, clock, metrics),
            metrics=metrics,
            clock=clock,
            wake=given.wake,
        )
    )
    parts = Parts(controller, cache, queue, poller, Health(clock, given.settings.resync_every_s))
    _register_gauges(parts, metrics, clock)
    return parts


def _poller(given: Surroundings, cache: Cache, changed: Callable[[Key], None]) -> StorePoller:
    return StorePoller(
        PollerParts(
            config=given.config,
            clock=given.clock,
            runner=given.runner,
            metrics=given.metrics,
            open_store=lambda uri, settings: CountedStore(given.open_store(uri, settings), given.metrics),
            probe=given.probe,
            is_alive=cache.is_alive,
            cluster_id=given.cluster_id,
            namespaces=given.settings.served_namespaces,
        ),
        changed,
    )


def _register_gauges(parts: Parts, metrics: Metrics, clock: Clock) -> None:
    poller = parts.poller

    def jobs() -> dict[tuple[tuple[str, str], ...], float]:
        return {
            (("kind", kind), ("phase", phase)): float(count) for (kind, phase), count in parts.cache.phases().items()
        }

    metrics.gauge("pagemill_operator_jobs", jobs)
    metrics.gauge("pagemill_operator_queue_depth", lambda: {(): float(parts.queue.depth)})
    metrics.gauge(
        "pagemill_operator_queue_oldest_seconds", lambda: {(): parts.queue.oldest_wait_s(clock.monotonic_s())}
    )
    metrics.gauge("pagemill_operator_children", lambda: {(): float(sum(1 for _ in parts.cache.child_names()))})
    metrics.gauge("pagemill_operator_store_breakers_open", lambda: {(): float(poller.open_breakers)})
    metrics.gauge("pagemill_operator_status_staleness_seconds", lambda: {(): poller.oldest_look_s(clock.monotonic_s())})
    metrics.gauge("pagemill_operator_resync_age_seconds", lambda: {(): parts.health.resync_age_s})
