"""A whole world for the operator, stepped by hand: API server, Job controller, pods, stores, a clock, and kills.

Layer: `operator.testing`. Deterministic: nothing runs unless it is told to, in the order it is told to. `kill` drops
the operator with all it remembers; `boot` starts a new one that must make do with what is written down.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pagemill_core.api.v1alpha1 import JobStatus
from pagemill_core.clock import Clock
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.storage.store import ObjectStore
from pagemill_core.work.pod import MANAGED_BY, MANAGED_BY_LABEL
from pagemill_operator.assembly import Surroundings, assemble
from pagemill_operator.cache import Cache
from pagemill_operator.cluster import JOBS, PLURALS, Address, JsonObject
from pagemill_operator.controller import Controller
from pagemill_operator.metrics import Metrics
from pagemill_operator.objects import Key
from pagemill_operator.queue import WorkQueue
from pagemill_operator.settings import Config, OperatorSettings
from pagemill_operator.store_poller import StorePoller
from pagemill_operator.testing.fake_jobs import FakeJobs
from pagemill_operator.testing.fake_kube import FakeKube
from pagemill_operator.testing.fake_pods import FakePods

T = TypeVar("T")
STORE_TAKES_S = 0.01
SELECTOR = f"{MANAGED_BY_LABEL}={MANAGED_BY}"


class Killed(BaseException):
    """The operator's process ends here, whatever it was doing."""


class MovableClock(Clock, Protocol):
    """A clock that tests move."""

    def advance(self, seconds: float) -> None:
        """Let time pass."""


def run_now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never really waits, such as all of FakeKube's."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError("the coroutine waits for something that a world has not")


class StepRunner:
    """A TaskRunner whose tasks run when they are told to."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Callable[[], None], Callable[[], None]]] = deque()

    def start(self, call: Callable[[], None], then: Callable[[], None]) -> None:
        self.waiting.append((call, then))

    def step(self) -> bool:
        """Run the task that waits longest. Returns: whether there was one."""
        if not self.waiting:
            return False
        call, then = self.waiting.popleft()
        call()
        then()
        return True


@dataclass
class Operator:
    """One life of the operator."""

    controller: Controller
    cache: Cache
    queue: WorkQueue[Key]
    runner: StepRunner
    poller: StorePoller
    metrics: Metrics


@dataclass(frozen=True)
class WorldParts:
    """What a world is made of. `open_store` is the operator's way to a store, `pods` have their own."""

    clock: MovableClock
    config: Config
    pods: FakePods
    open_store: Callable[[str], ObjectStore]


class World:
    """Steps everything. `events` of the watch wait in `kube.events` until delivered."""

    def __init__(self, parts: WorldParts) -> None:
        self.clock = parts.clock
        self.config = parts.config
        self.pods = parts.pods
        self.kube = FakeKube(parts.clock)
        self.jobs = FakeJobs(self.kube, parts.pods, parts.clock)
        self._open_store = parts.open_store
        self.operator = self._make()

    # -- the operator's life ------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Start a new operator: it lists everything, as the real one does before it watches."""
        self.operator = self._make()
        self.kube.events.clear()
        self.resync()

    def resync(self) -> None:
        run_now(self.operator.controller.resync((), SELECTOR))

    def _make(self) -> Operator:
        metrics, runner = Metrics(), StepRunner()

        def open_store(uri: str, _: S3Settings) -> ObjectStore:
            return self._open_store(uri)

        parts = assemble(
            Surroundings(
                settings=OperatorSettings(),
                config=self.config,
                cluster=self.kube,
                cluster_id="test-cluster",
                clock=self.clock,
                metrics=metrics,
                runner=runner,
                open_store=open_store,
                probe=lambda _: None,
            )
        )
        return Operator(parts.controller, parts.cache, parts.queue, runner, parts.poller, metrics)

    # -- steps --------------------------------------------------------------------------------------------------------

    def deliver(self) -> bool:
        """Bring one event of the watch to the operator. Returns: whether there was one."""
        if not self.kube.events:
            return False
        resource, kind, body = self.kube.events.popleft()
        if resource == JOBS:
            self.operator.controller.hear_child(kind, body)
        elif resource in PLURALS.values():
            self.operator.controller.hear_custom(kind, body)
        return True

    def make_pass(self) -> bool:
        """Let the operator look at one job. Returns: whether one was waiting."""
        taken = self.operator.queue.take(self.clock.monotonic_s())
        if taken is None:
            return False
        run_now(self.operator.controller.make_pass(taken))
        return True

    def ask_store(self) -> bool:
        """Let one dealing with a store happen, which takes a moment. Returns: whether one was waiting."""
        if not self.operator.runner.waiting:
            return False
        self.clock.advance(STORE_TAKES_S)
        return self.operator.runner.step()

    def tick(self, seconds: float = 1.0) -> None:
        """A moment of everything: the cluster moves, the operator reacts until it has nothing to do, time passes."""
        self.jobs.step()
        for _ in range(10_000):
            if not (self.deliver() or self.make_pass() or self.ask_store()):
                self.clock.advance(seconds)
                return
        raise RuntimeError("the operator does not come to rest")

    def run_until(self, done: Callable[[], bool], *, most_s: float = 600.0, step_s: float = 1.0) -> float:
        """Tick until `done`. Returns: the seconds it took. Raises: AssertionError after `most_s`."""
        started_s = self.clock.monotonic_s()
        while not done():
            if self.clock.monotonic_s() - started_s > most_s:
                raise AssertionError(f"not done after {most_s} s; jobs: {self.summary()}")
            self.tick(step_s)
        return self.clock.monotonic_s() - started_s

    # -- looking ------------------------------------------------------------------------------------------------------

    def status(self, name: str, kind: str = "OcrJob") -> JobStatus:
        """A job's status as a person would see it."""
        body = self.kube.read(PLURALS[kind], name)
        return JobStatus.model_validate(body.get("status") or {})

    def condition(self, name: str, kind: str) -> tuple[str, str]:
        """Status and reason of a condition, ("", "") when it is not there."""
        found = self.status(name).condition(kind)
        return ("", "") if found is None else (found.status, found.reason)

    def child_jobs(self) -> list[JsonObject]:
        """All child Jobs, by name."""
        return self.kube.all(JOBS)

    def summary(self) -> dict[str, Any]:
        """What every job says of itself, for a test that failed."""
        return {
            body["metadata"]["name"]: (body.get("status") or {}).get("phase")
            or (body.get("status") or {}).get("conditions")
            for resource in (*PLURALS.values(), JOBS)
            for body in self.kube.all(resource)
        } | {
            f"{body['metadata']['name']} message": (body.get("status") or {}).get("message")
            for body in self.kube.all(PLURALS["OcrJob"])
        }

    def delete(self, name: str, kind: str = "OcrJob") -> None:
        """`kubectl delete`."""
        self.kube.remove(Address(PLURALS[kind], "default", name))
