"""One simulated world: a source, a few jobs and the clusters that run them, one output that they all write to.

Layer: `core.testing.sim`. Holds state and starts processes; what processes do is in `planner`, `worker`, `finalizer`
and `controller`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.sim.scheduler import HostClock, Process, Scheduler
from pagemill_core.testing.sim.store import Faults, SimStore, Weather
from pagemill_core.work.conditional import Writer
from pagemill_core.work.ledger import WorkRequest
from pagemill_core.work.lifecycle import Limits
from pagemill_core.work.records import Desired

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Spec:
    """What a user's file says. `work_key` and `fingerprint` stand for the digests of its work fields and engine."""

    work_key: str
    fingerprint: str
    incremental: bool = False
    replace: bool = False
    limits: Limits = Limits()
    kind: str = "OcrJob"

    def request(self) -> WorkRequest:
        return WorkRequest(self.work_key, self.kind, self.incremental, self.replace)


@dataclass
class Job:
    """A custom resource, or an invocation of the command: who wants `spec` done.

    `outcome` is "" while unfinished; `past` are the specs it had before.
    """

    uid: str
    cluster: str
    spec: Spec
    desired: Desired = "Run"
    is_deleted: bool = False
    outcome: str = ""
    controller: Process | None = None
    finished_runs: list[str] = field(default_factory=list)
    past: list[Spec] = field(default_factory=list)

    @property
    def specs(self) -> list[Spec]:
        return [*self.past, self.spec]

    @property
    def is_failed(self) -> bool:
        return self.outcome.startswith("Failed/")


@dataclass
class Habits:
    """How the simulated programs of one world behave where the protocol leaves it open."""

    shard_items: int
    parallelism: int
    item_s: float
    partial_chance: float
    flaky_chance: float
    reads_entry: bool
    releases_on_stop: bool
    deadline_s: float
    price_per_hour: str

    @classmethod
    def drawn(cls, rng: random.Random) -> Habits:
        return cls(
            shard_items=rng.choice((1, 1, 2, 3)),
            parallelism=rng.choice((1, 2, 3)),
            item_s=rng.choice((0.0, 10.0, 60.0)),
            partial_chance=rng.choice((0.0, 0.3)),
            flaky_chance=rng.choice((0.0, 0.0, 0.15)),
            reads_entry=rng.random() < 0.5,
            releases_on_stop=rng.random() < 0.5,
            deadline_s=rng.choice((30.0, 600.0)),
            price_per_hour=rng.choice(("0", "3600")),
        )


class World:
    """Everything that exists in one schedule."""

    def __init__(self, rng: random.Random, weather: Weather, habits: Habits) -> None:
        self.rng = rng
        self.habits = habits
        self.scheduler = Scheduler(rng, switchiness=rng.choice((0.1, 0.4, 0.9)))
        self.faults = Faults(weather, self.scheduler)
        self.memory = MemoryStore("out")
        self.source: dict[str, int] = {}
        self.bad_items: set[str] = set()
        self.deadly_items: dict[str, int] = {}  # id -> how many more processes it kills
        self.jobs: list[Job] = []
        self.pods: dict[tuple[str, str, str], list[Process]] = {}  # (cluster, run, role) -> its processes
        self.computed: list[tuple[str, str]] = []  # (run, item) each time an item is computed
        self._hosts = 0
        self._ids = 0

    def attach(self, store: SimStore) -> None:
        self.store = store

    # -- machines ---------------------------------------------------------------------------------------------------

    def writer(self) -> Writer:
        """A process's own view: the shared store, and a clock that may be hours off."""
        self._hosts += 1
        clock = HostClock(self.scheduler, self.rng.choice((-5.0, 0.0, 7.0)) * HOUR_S + self._hosts)
        return Writer(self.store, clock, self.rng, self.habits.deadline_s)

    def new_id(self) -> str:
        """An attempt's id, never used twice."""
        self._ids += 1
        return f"id{self._ids}"

    def start(self, name: str, body: Callable[[Process], None], owner: str = "") -> Process:
        process = self.scheduler.spawn(f"{name}.{self._hosts}", body)
        process.owner = owner
        return process

    # -- pods -------------------------------------------------------------------------------------------------------

    def pods_of(self, cluster: str, run: str, role: str) -> list[Process] | None:
        """The pods that a cluster ever started for a role of a run, None when it never did."""
        return self.pods.get((cluster, run, role))

    def are_over(self, pods: list[Process]) -> bool:
        return all(pod.looks_gone(self.scheduler.now_s) for pod in pods)

    def stop_pods(self, cluster: str, run: str | None = None) -> None:
        """Ask pods to end after the item at hand."""
        for (where, of_run, _), pods in self.pods.items():
            if where == cluster and run in (None, of_run):
                for pod in pods:
                    pod.stop_asked = True

    # -- jobs -------------------------------------------------------------------------------------------------------

    def job(self, uid: str) -> Job | None:
        return next((job for job in self.jobs if job.uid == uid), None)

    def is_at_rest(self) -> bool:
        return all(job.outcome or job.is_deleted for job in self.jobs)

    def edit(self, job: Job, **fields: object) -> None:
        """Change a job's spec as a user does; a job that had ended is looked at again."""
        job.past.append(job.spec)
        job.spec = replace(job.spec, **fields)  # type: ignore[arg-type]
        job.outcome = ""
