"""Driving one job on this machine from wherever it stands to its end.

Layer: `cli.local`. Decides nothing by itself: it observes, asks `core.work.lifecycle.decide`, and does that one step,
exactly as the operator does with pods.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from decimal import Decimal
from types import TracebackType

from pagemill_cli.local.heartbeat import Heartbeat
from pagemill_core.clock import iso
from pagemill_core.ids import ulid
from pagemill_core.work.conditional import Writer
from pagemill_core.work.finalize import publish_missing, seal_missing, succeed, write_report
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.lifecycle import Decision, Limits, Observed, Step, decide, too_many_failures
from pagemill_core.work.records import PlanPointer, RunReport, Totals, WaveRecord
from pagemill_core.work.tracker import Tracker
from pagemill_core.work.usage import Spent, UsageReader
from pagemill_core.work.waves import create_wave, newest_wave, read_wave, to_ranges
from pagemill_worker.finalize.committed import CommittedRun
from pagemill_worker.work.pool import Answer
from pagemill_worker.work.step import Listeners, UsageClock

LOOK_EVERY_S = 2.0
INTERRUPTED = "Interrupted"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command's work on a run ended; `reason` is a constant, "" when the run is complete."""

    reason: str
    message: str
    totals: Totals
    spent: Spent


@dataclass(frozen=True, slots=True)
class Scene:
    """What a progress display may show of the run."""

    step: Step
    totals: Totals
    planned: int | None = None
    spent: Spent = Spent()
    wave: int = 0


@dataclass(frozen=True)
class Steps:
    """The three steps of this job's kind, bound to their surroundings."""

    read_plan: Callable[[], PlanPointer | None]
    plan: Callable[[], PlanPointer]
    kind: Callable[[PlanPointer], CommittedRun]
    work: Callable[[CommittedRun, Iterator[int], Listeners], bool]  # returns whether it was stopped


@dataclass(frozen=True)
class Driver:
    """Drives one held run. `interrupted` is set by whoever catches Ctrl-C; `show` hears the scene as it changes."""

    writer: Writer
    layout: RunLayout
    heart: Heartbeat
    steps: Steps
    limits: Limits
    usage: UsageClock
    listeners: Listeners
    interrupted: threading.Event
    show: Callable[[Scene], None]

    def drive(self) -> Outcome:
        """Do what the run needs until it ends, is stopped or is interrupted."""
        return _Drive(self).to_the_end()


class _Drive:
    """The state of one drive: all of it can be rebuilt from the store, and is, by the next one."""

    def __init__(self, driver: Driver) -> None:
        self._d = driver
        self._pointer: PlanPointer | None = driver.steps.read_plan()
        self._kind: CommittedRun | None = None
        self._tracker: Tracker | None = None
        self._usage = UsageReader(driver.writer, driver.layout)
        self._wave = newest_wave(driver.writer, driver.layout)
        # A wave found at the start was cut short by whatever ended the last drive: it goes on and uses up no retry.
        self._wave_is_over = self._wave == 0
        self._scene = Scene(Step.PLAN, Totals())

    def to_the_end(self) -> Outcome:
        while True:
            self._d.heart.check()
            self._look()
            decision = decide(self._observed(), self._d.limits)
            if self._d.interrupted.is_set() and decision.step is not Step.DONE:
                return self._leave(Decision(Step.STOP, INTERRUPTED, "interrupted; what is committed stays"))
            self._set_scene(step=decision.step)
            ended = self._do(decision)
            if ended is not None:
                return ended

    # -- observing --------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Count markers and money again."""
        if self._pointer is None:
            return
        if self._tracker is None:
            self._tracker = Tracker(self._d.writer, self._d.layout, self._pointer.shards)
        totals = self._tracker.poll()
        spent = self._usage.spent(self._d.usage.record)
        self._set_scene(totals=totals, spent=spent, planned=self._pointer.items, wave=self._wave)

    def _observed(self) -> Observed:
        entry = self._d.heart.entry
        return Observed(
            state=entry.state,
            desired=entry.desired,
            planned_items=self._pointer.items if self._pointer else None,
            totals=self._scene.totals,
            wave=self._wave,
            wave_is_over=self._wave_is_over,
            spent=self._scene.spent.cost,
            active_s=self._d.heart.active_s,
        )

    def _set_scene(self, **changes: object) -> None:
        self._scene = replace(self._scene, **changes)  # type: ignore[arg-type]  # fields of Scene by name
        self._d.show(self._scene)

    # -- doing ------------------------------------------------------------------------------------------------------

    def _do(self, decision: Decision) -> Outcome | None:
        match decision.step:
            case Step.PLAN:
                self._plan()
            case Step.START_WAVE:
                self._start_wave()
            case Step.WAIT:
                self._work()
            case Step.START_SEALING:
                self._d.heart.update(state="Sealing", reason=decision.reason)
            case Step.SEAL:
                seal_missing(self._d.writer, self._d.layout, self._counted, self._open_kind(), self._attempt())
            case Step.FINALIZE:
                return self._succeed()
            case Step.DONE:
                return self._outcome(decision)
            case _:
                return self._leave(decision)
        return None

    def _plan(self) -> None:
        self._pointer = self._d.steps.plan()
        self._d.heart.update(fingerprint=self._pointer.fingerprint)

    def _start_wave(self) -> None:
        ranges = to_ranges(self._counted.missing())
        create_wave(self._d.writer, self._d.layout, WaveRecord(number=self._wave + 1, ranges=ranges))
        self._wave += 1
        self._wave_is_over = False

    def _work(self) -> None:
        wave = read_wave(self._d.writer, self._d.layout, self._wave)
        owned = {shard for first, last in wave.ranges for shard in range(first, last + 1)} if wave else set()
        shards = iter([shard for shard in self._counted.missing() if shard in owned])
        with _Watch(self._check) as watch:
            listeners = replace(self._d.listeners, progress=self._hear, should_stop=watch.must_stop)
            stopped = self._d.steps.work(self._open_kind(), shards, listeners)
        self._wave_is_over = not stopped

    def _hear(self, answer: Answer) -> None:
        """Count what a remote engine charged for an item, before its shard is committed: money is spent by then."""
        self._d.usage.add_api_cost(answer.api_cost)
        self._d.listeners.progress(answer)

    def _check(self) -> bool:
        """In the watching thread, every few seconds of a wave: whether work must stop."""
        self._d.usage.write_if_due()
        self._look()
        return (
            self._d.heart.lost
            or self._d.interrupted.is_set()
            or decide(self._observed(), self._d.limits).step
            not in (
                Step.WAIT,
                Step.FINALIZE,
            )
        )

    def _succeed(self) -> Outcome:
        kind, pointer = self._open_kind(), self._planned
        self._d.usage.write()
        succeed(self._d.writer, self._d.layout, pointer, self._scene.totals, kind)
        outcome = self._verdict()
        self._report(outcome)  # first, since nobody comes back to a run that is Finished
        self._d.heart.update(state="Finished", reason="Complete", fingerprint=pointer.fingerprint)
        return outcome

    def _leave(self, decision: Decision) -> Outcome:
        """End this ownership short of success: views of what is committed, a report, and the entry let go."""
        self._d.usage.write()
        if self._pointer is not None:
            publish_missing(self._d.writer, self._d.layout, self._pointer.shards, self._open_kind())
        outcome = self._outcome(decision)
        self._report(outcome)
        if decision.step is Step.GIVE_UP:
            self._d.heart.update(state="GivenUp", reason=decision.reason)
        else:
            self._d.heart.update(owner="", reason=decision.reason)
        return outcome

    # -- endings ----------------------------------------------------------------------------------------------------

    def _verdict(self) -> Outcome:
        message = too_many_failures(self._scene.totals, self._planned.items, self._d.limits)
        return self._outcome(Decision(Step.DONE, "TooManyFailures" if message else "", message))

    def _outcome(self, decision: Decision) -> Outcome:
        return Outcome(decision.reason, decision.message, self._scene.totals, self._usage.spent(self._d.usage.record))

    def _report(self, outcome: Outcome) -> None:
        entry = self._d.heart.entry
        report = RunReport(
            run=self._d.layout.run,
            kind=entry.kind,
            outcome=outcome.reason or "Complete",
            message=outcome.message,
            totals=outcome.totals,
            spent=format(outcome.spent.cost, "f"),
            active_seconds=round(self._d.heart.active_s, 3),
            ended_at=iso(self._d.writer.clock.now()),
        )
        write_report(self._d.writer, self._d.layout, entry.epoch, report)

    # -- what exists only after the plan ----------------------------------------------------------------------------

    @property
    def _planned(self) -> PlanPointer:
        if self._pointer is None:
            raise RuntimeError("this step needs a plan")
        return self._pointer

    @property
    def _counted(self) -> Tracker:
        if self._tracker is None:
            raise RuntimeError("this step needs a count")
        return self._tracker

    def _open_kind(self) -> CommittedRun:
        if self._kind is None:
            self._kind = self._d.steps.kind(self._planned)
        return self._kind

    def _attempt(self) -> str:
        return ulid(int(self._d.writer.clock.now().timestamp() * 1000))


class _Watch:
    """Calls `check` every few seconds in a thread of its own until it says stop; what it raises, leaving raises."""

    def __init__(self, check: Callable[[], bool]) -> None:
        self._check = check
        self._over = threading.Event()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="watch")

    def __enter__(self) -> _Watch:
        self._future = self._executor.submit(self._run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._executor.shutdown()
        if error is None:
            self._future.result()

    def must_stop(self) -> bool:
        return self._future.done()

    def _run(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            if self._check():
                return


def money(amount: Decimal) -> str:
    """An amount for people: two decimals, four when it is small."""
    return f"{amount:.2f}" if amount >= 1 or not amount else f"{amount:.4f}"
