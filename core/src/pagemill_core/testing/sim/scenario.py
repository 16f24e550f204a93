"""What users and machines do to a world while it runs, drawn by seed.

Layer: `core.testing.sim`. Each event is a small change of the world at a moment; processes notice it by looking, as
they would notice a changed custom resource.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from decimal import Decimal

from pagemill_core.api.quantities import FailureLimit
from pagemill_core.errors import OutputBusyError
from pagemill_core.testing.sim.controller import Controller
from pagemill_core.testing.sim.invariants import Rules
from pagemill_core.testing.sim.scheduler import NotLiveError, Process
from pagemill_core.testing.sim.world import Job, Spec, World
from pagemill_core.work.ledger import Ledger, Owner
from pagemill_core.work.lifecycle import Limits

WATCH_EVERY_S = 240.0
SETTLE_AT_S = 4000.0
SETTLE_TIMES = 6
GENEROUS = Limits(waves=9)
_BUSY_S = 500.0  # most of what happens in a world without stalls happens before this
_HARMLESS = frozenset({"Failed/OutputInUse"})  # outcomes that no limit would change


class Scenario:
    """One world's script."""

    def __init__(self, world: World, rules: Rules) -> None:
        self._world = world
        self._rules = rules
        self._rng = world.rng
        self._settled = 0
        self._happenings: tuple[Callable[[Job], None], ...] = (
            self._second_of_same_work,
            self._other_work,
            self._edited,
            self._edited_and_back,
            self._wavering,
            self._wavering,
            self._deleted_and_applied_again,
            self._paused,
            self._cancelled,
            self._short_of_money,
            self._short_of_time,
            self._grown_source,
            self._deadly_items,
            self._many_failures,
            self._operator_restarted,
            self._incremental_twice,
        )

    def begin(self) -> None:
        """Fill the source, apply the first job, and write the rest into the calendar."""
        rng, world = self._rng, self._world
        for number in range(rng.randint(0, 8)):
            world.source[f"p{number}"] = 1
        if rng.random() < 0.4:
            world.bad_items.update(item for item in world.source if rng.random() < 0.3)
        spec = Spec("a" * 64, "f1", incremental=rng.random() < 0.25, limits=Limits(waves=rng.randint(0, 3)))
        job = self._apply("u1", "k1", spec)
        for happening in rng.sample(self._happenings, rng.choice((0, 1, 1, 2, 3))):
            happening(job)
        world.scheduler.at(SETTLE_AT_S, self._settle)

    # -- jobs and their controllers ---------------------------------------------------------------------------------

    def _apply(self, uid: str, cluster: str, spec: Spec) -> Job:
        job = Job(uid, cluster, spec)
        self._world.jobs.append(job)
        self._watch(job)
        return job

    def _watch(self, job: Job) -> None:
        """Keep a controller running, as a cluster does: a new one where the old is gone or does not answer."""
        if job.is_deleted or job.outcome:
            return
        if job.controller is None or job.controller.looks_gone(self._world.scheduler.now_s):
            self._start_controller(job)
        self._world.scheduler.at(self._world.scheduler.now_s + WATCH_EVERY_S, lambda: self._watch(job))

    def _start_controller(self, job: Job) -> None:
        job.controller = self._world.start(f"controller-{job.uid}", Controller(self._world, self._rules, job))

    def _wake(self, job: Job) -> None:
        if job.controller is None or job.controller.ended:
            self._watch(job)

    def _later(self, act: Callable[[], object], after_s: float = 0.0) -> float:
        when_s = after_s + self._rng.random() * _BUSY_S
        self._world.scheduler.at(when_s, act)
        return when_s

    # -- happenings -------------------------------------------------------------------------------------------------

    def _second_of_same_work(self, job: Job) -> None:
        self._later(lambda: self._apply("u2", "k2", job.spec))

    def _other_work(self, job: Job) -> None:
        spec = Spec("b" * 64, self._rng.choice((job.spec.fingerprint, "f2")), replace=self._rng.random() < 0.5)
        self._later(lambda: self._apply("u3", self._rng.choice(("k1", "k2")), spec))

    def _edited(self, job: Job) -> None:
        fingerprint = self._rng.choice((job.spec.fingerprint, "f3"))
        self._later(lambda: self._edit(job, work_key="c" * 64, fingerprint=fingerprint))

    def _edited_and_back(self, job: Job) -> None:
        when_s = self._later(lambda: self._edit(job, work_key="d" * 64, fingerprint="f4"))
        self._later(lambda: self._edit(job, work_key="a" * 64, fingerprint="f1"), when_s)

    def _wavering(self, job: Job) -> None:
        """Edited to and fro, each time with some work done: several given-up runs of the same work."""
        when_s = 0.0
        for turn in range(self._rng.randint(2, 6)):
            when_s += 30 + self._rng.random() * 120
            work_key = "ea"[turn % 2] * 64
            self._world.scheduler.at(when_s, functools.partial(self._edit, job, work_key=work_key))

    def _edit(self, job: Job, **fields: object) -> None:
        if not job.is_deleted:
            self._world.edit(job, **fields)
            self._wake(job)

    def _deleted_and_applied_again(self, job: Job) -> None:
        def delete() -> None:
            job.is_deleted = True

        when_s = self._later(delete)
        self._later(lambda: self._apply("u4", self._rng.choice(("k1", "k2")), job.spec), when_s)

    def _paused(self, job: Job) -> None:
        def pause() -> None:
            job.desired = "Pause"

        def resume() -> None:
            job.desired = "Run"

        self._later(resume, self._later(pause))

    def _cancelled(self, job: Job) -> None:
        def cancel() -> None:
            job.desired = "Stop"

        self._later(cancel)

    def _short_of_money(self, job: Job) -> None:
        self._world.habits.price_per_hour = "3600"
        limits = Limits(waves=job.spec.limits.waves, max_cost=Decimal(self._rng.randint(0, 20)))
        self._world.edit(job, limits=limits)

    def _short_of_time(self, job: Job) -> None:
        limits = Limits(waves=job.spec.limits.waves, deadline_s=self._rng.random() * 400)
        self._world.edit(job, limits=limits)

    def _grown_source(self, job: Job) -> None:
        def grow() -> None:
            self._world.source[f"q{len(self._world.source)}"] = 1
            if self._world.source and self._rng.random() < 0.5:
                changed = self._rng.choice(sorted(self._world.source))
                self._world.source[changed] += 1

        self._later(grow)

    def _deadly_items(self, job: Job) -> None:
        for item in sorted(self._world.source):
            if self._rng.random() < 0.4:
                self._world.deadly_items[item] = self._rng.choice((1, 2, 1000))
        allowed = self._rng.choice(
            (None, FailureLimit(count=0), FailureLimit(count=3), FailureLimit(percent=Decimal(50)))
        )
        self._world.edit(job, limits=Limits(waves=self._rng.randint(0, 2), max_failed=allowed))

    def _many_failures(self, job: Job) -> None:
        self._world.bad_items.update(item for item in self._world.source if self._rng.random() < 0.5)
        self._world.edit(job, limits=Limits(waves=job.spec.limits.waves, max_failed=FailureLimit(count=1)))

    def _operator_restarted(self, job: Job) -> None:
        def restart() -> None:
            if job.controller is not None and not job.controller.ended and self._rng.random() < 0.5:
                self._world.scheduler.kill(job.controller)
            if not job.outcome and not job.is_deleted:
                self._start_controller(job)

        self._later(restart)

    def _incremental_twice(self, job: Job) -> None:
        """A schedule that makes a fresh incremental job each time, as a CronJob does."""
        self._world.edit(job, incremental=True)
        when_s = self._later(lambda: self._grow_and_apply(job))
        self._later(lambda: self._grow_and_apply(job), when_s)

    def _grow_and_apply(self, job: Job) -> None:
        number = len(self._world.jobs)
        self._world.source[f"n{number}"] = 1
        self._apply(f"cron-{number}", "k1", job.spec)

    # -- the end ----------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """End the bad weather and give in everywhere, so that everything can end; again until it has."""
        world = self._world
        world.faults.is_on = False
        self._settled += 1
        if self._rng.random() < 0.5:
            world.deadly_items.clear()  # else what they hold up is sealed
        for job in world.jobs:
            if job.is_deleted or job.outcome in ("Complete", *_HARMLESS):
                continue
            job.desired = "Run"
            world.edit(job, limits=GENEROUS)
            self._wake(job)
        if world.is_at_rest():
            return
        if self._settled > SETTLE_TIMES:
            waiting = [job.uid for job in world.jobs if not job.outcome and not job.is_deleted]
            raise NotLiveError(f"{waiting} do not end")
        world.start("release", self._release_abandoned)
        world.scheduler.at(world.scheduler.now_s + SETTLE_AT_S / 2, self._settle)

    def _release_abandoned(self, _process: Process) -> None:
        """What `pagemill release` does to a run whose job is gone while others wait for the output."""
        ledger = Ledger(self._world.writer(), Owner("release"))
        newest = ledger.newest()
        waiting = [job for job in self._world.jobs if not job.outcome and not job.is_deleted]
        # A job gives up its own run of other work by itself; nobody has to release that.
        wanted = {job.spec.work_key for job in waiting} | {job.uid for job in waiting}
        if newest is None or newest.entry.is_final:
            return
        if not wanted & {newest.entry.work_key, newest.entry.owner}:
            try:
                ledger.request(newest.entry.seq, state="GivenUp", reason="Released", owner="")
            except OutputBusyError:
                return
