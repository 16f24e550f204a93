"""One job's dealings with its output: adopting a run, looking at it, changing its entry, cutting waves.

Layer: the operator; blocking I/O, run in a thread of the poller, never by two at once. Everything it remembers can be
read again, and is, after a restart.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable
from typing import Any

from pagemill_core.errors import IntegrityError
from pagemill_core.storage.store import ObjectStore
from pagemill_core.work.conditional import Writer
from pagemill_core.work.finalize import read_success
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.ledger import RENEW_EVERY_S, Held, Ledger, Owner
from pagemill_core.work.plan import read_plan
from pagemill_core.work.records import Holder, PlanPointer, Totals, WaveRecord
from pagemill_core.work.tracker import Tracker
from pagemill_core.work.usage import Spent, UsageReader
from pagemill_core.work.waves import count, create_wave, newest_wave, read_wave, to_ranges
from pagemill_operator.reconcile.plan import Adopt, ChangeEntry, Look, StartWave, StoreAction
from pagemill_operator.store_view import StoreView

USAGE_EVERY_S = 20.0  # pods write theirs every 60 s
RATE_WINDOW_S = 300.0
RATE_LEAST_S = 5.0


@dataclasses.dataclass(frozen=True)
class DeskParts:
    """What a desk is made of. `is_gone` says whether the holder of an entry is a job that is gone from this cluster."""

    writer: Writer
    owner: Owner
    is_gone: Callable[[Holder], bool]
    probe: Callable[[ObjectStore], None]


@dataclasses.dataclass
class _Counted:
    """What is kept of one run between looks, so that nothing is read twice."""

    layout: RunLayout
    usage: UsageReader
    plan: PlanPointer | None = None
    tracker: Tracker | None = None
    final_totals: Totals | None = None
    spent: Spent = Spent()
    spent_read_s: float | None = None
    wave: WaveRecord | None = None
    wave_known: bool = False
    samples: deque[tuple[float, int]] = dataclasses.field(default_factory=deque)


class StoreDesk:
    """Does one store action after the other for one job. Each returns a new picture of the run."""

    def __init__(self, parts: DeskParts) -> None:
        self._writer = parts.writer
        self._probe = parts.probe
        self._ledger = Ledger(parts.writer, parts.owner, parts.is_gone)
        self._counted: _Counted | None = None
        self._active_since_s: float | None = None  # pods are at work, and this much is not in the entry yet
        self._unsaved_s = 0.0
        self._renewed_s: float | None = None

    def do(self, action: StoreAction) -> StoreView:
        """Do `action` and look. Raises: PagemillError; the action may then have happened all the same."""
        match action:
            case Adopt():
                self._probe(self._writer.store)
                held = self._ledger.adopt(action.request).held
                return self._look(held, is_active=False, thorough=True)
            case Look():
                held = self._ledger.read(RunLayout(action.run).seq)
                return self._look(held, is_active=action.is_active, thorough=action.is_thorough)
            case StartWave():
                return self._start_wave(action)
            case ChangeEntry():
                return self._change(action)

    # -- changing -----------------------------------------------------------------------------------------------------

    def _change(self, action: ChangeEntry) -> StoreView:
        held = self._ledger.read(RunLayout(action.run).seq)
        if not self._says(held, dict(action.fields)):
            held = self._ledger.update(self._renew(held, is_active=False), **action.fields)
        return self._look(held, is_active=False, thorough=True)

    @staticmethod
    def _says(held: Held, fields: dict[str, Any]) -> bool:
        """Whether an earlier call, whose reply was lost, has made this change."""
        return all(getattr(held.entry, name) == value for name, value in fields.items())

    def _start_wave(self, action: StartWave) -> StoreView:
        held = self._ledger.read(RunLayout(action.run).seq)
        view = self._look(held, is_active=False, thorough=True)
        counted = self._counted
        if not view.is_mine or view.entry.state != "Open" or view.wave >= action.number:
            return view
        if counted is None or counted.tracker is None:
            raise IntegrityError(f"{action.run} has no plan to cut a wave from")
        ranges = to_ranges(counted.tracker.missing())
        record = WaveRecord(number=action.number, ranges=ranges, memory_rung=action.memory_rung)
        counted.wave = create_wave(self._writer, counted.layout, record)
        return self._picture(held, counted, self._now_s())

    # -- looking ------------------------------------------------------------------------------------------------------

    def _look(self, held: Held, *, is_active: bool, thorough: bool) -> StoreView:
        looked_s = self._now_s()
        counted = self._count_of(held)
        if held.entry.is_final:
            self._active_since_s = None
        elif self._ledger.is_mine(held.entry):
            held = self._renew(held, is_active=is_active, only_when_due=True)
        self._read_plan(counted, held)
        if counted.tracker is not None and counted.final_totals is None:
            counted.tracker.poll(thorough=thorough)
        self._read_spent(counted, is_final=held.entry.is_final)
        if not counted.wave_known:
            newest = newest_wave(self._writer, counted.layout)
            counted.wave = read_wave(self._writer, counted.layout, newest) if newest else None
            counted.wave_known = True
        return self._picture(held, counted, looked_s)

    def _count_of(self, held: Held) -> _Counted:
        if self._counted is None or self._counted.layout.run != held.run:
            layout = RunLayout(held.run)
            self._counted = _Counted(layout, UsageReader(self._writer, layout))
            self._renewed_s = self._active_since_s = None
            self._unsaved_s = 0.0
        return self._counted

    def _read_plan(self, counted: _Counted, held: Held) -> None:
        if counted.plan is None:
            counted.plan = read_plan(self._writer, counted.layout)
        if counted.plan is None or counted.final_totals is not None:
            return
        if held.entry.state == "Finished":
            success = read_success(self._writer, counted.layout)
            if success is None:
                raise IntegrityError(f"run {held.run} is Finished, but {counted.layout.success} is gone")
            counted.final_totals = success.totals
        elif counted.tracker is None:
            counted.tracker = Tracker(self._writer, counted.layout, counted.plan.shards)

    def _read_spent(self, counted: _Counted, *, is_final: bool) -> None:
        now_s = self._now_s()
        is_due = counted.spent_read_s is None or now_s - counted.spent_read_s >= USAGE_EVERY_S
        if is_due or is_final:
            counted.spent = counted.usage.spent()
            counted.spent_read_s = now_s

    def _picture(self, held: Held, counted: _Counted, looked_s: float) -> StoreView:
        totals = counted.final_totals or (counted.tracker.totals if counted.tracker else Totals())
        is_done = counted.plan is not None and totals.shards_done == totals.shards
        wave = counted.wave
        return StoreView(
            run=held.run,
            entry=held.entry,
            is_mine=self._ledger.is_mine(held.entry),
            looked_s=looked_s,
            plan=counted.plan,
            totals=totals,
            spent=counted.spent,
            wave=wave.number if wave else 0,
            wave_shards=count(wave.ranges) if wave else 0,
            memory_rung=wave.memory_rung if wave else 0,
            has_success=is_done and self._writer.store.head(counted.layout.success) is not None,
            active_s=held.entry.active_seconds + self._unsaved_s + self._running_s(),
            is_active=self._active_since_s is not None,
            rate=_rate(counted, looked_s, totals),
        )

    # -- holding ------------------------------------------------------------------------------------------------------

    def _renew(self, held: Held, *, is_active: bool, only_when_due: bool = False) -> Held:
        """Count the time at work; write it, and that this owner lives, when it is time to."""
        now_s = self._now_s()
        self._unsaved_s += self._running_s()
        self._active_since_s = now_s if is_active else None
        if self._renewed_s is None:
            self._renewed_s = now_s
        if only_when_due and now_s - self._renewed_s < RENEW_EVERY_S:
            return held
        renewed = self._ledger.renew(held, self._unsaved_s)
        self._unsaved_s, self._renewed_s = 0.0, now_s
        return renewed

    def _running_s(self) -> float:
        return 0.0 if self._active_since_s is None else self._now_s() - self._active_since_s

    def _now_s(self) -> float:
        return self._writer.clock.monotonic_s()


def _rate(counted: _Counted, now_s: float, totals: Totals) -> float | None:
    """Items a second over the last minutes."""
    items = totals.items
    samples = counted.samples
    samples.append((now_s, items.succeeded + items.failed + items.skipped))
    while len(samples) > 2 and now_s - samples[1][0] >= RATE_WINDOW_S:
        samples.popleft()
    span_s, done = now_s - samples[0][0], samples[-1][1] - samples[0][1]
    return done / span_s if span_s >= RATE_LEAST_S and done > 0 else None
