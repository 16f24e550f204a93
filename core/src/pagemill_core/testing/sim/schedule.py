"""One schedule: a world made from a seed, run to its end, and judged.

Layer: `core.testing.sim`. The same seed gives the same operations in the same order, whatever the machine.
"""

from __future__ import annotations

import contextlib
import gc
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unittest import mock

from pagemill_core.testing.sim.invariants import Rules
from pagemill_core.testing.sim.scenario import Scenario
from pagemill_core.testing.sim.store import SimStore, Weather
from pagemill_core.testing.sim.verdict import judge, reconcile_again
from pagemill_core.testing.sim.world import Habits, World
from pagemill_core.work import layout, tracker
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.records import Record

STEP_BOUND = 8000  # over twenty times what most schedules need
SEGMENT_SHARDS = 3
_REMEMBERED = 2000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a schedule: operations done, simulated seconds, runs claimed, and how each job ended."""

    seed: int
    steps: int
    seconds: float
    runs: int
    outcomes: tuple[str, ...]


class ScheduleFailedError(AssertionError):
    """A schedule broke a promise; the message says which, and how to see it again."""


@contextlib.contextmanager
def small_segments() -> Iterator[None]:
    """Segments of a few shards, so that a small world has several, full and open ones; and less garbage collection."""
    thresholds = gc.get_threshold()
    gc.set_threshold(20_000, 20, 50)
    with (
        mock.patch.object(layout, "SEGMENT_SHARDS", SEGMENT_SHARDS),
        mock.patch.object(tracker, "GET_INSTEAD_OF_LIST", 1),
        # A segment's five digits begin its shards' names only when a segment has 1000 of them.
        mock.patch.object(RunLayout, "attempts_of_segment", lambda self, _segment: f"{self.prefix}attempts/"),
        mock.patch.object(Record, "from_bytes", classmethod(_read_once())),
        mock.patch.object(RunLayout, "partials_of_segment", lambda self, _segment: f"{self.prefix}partial/"),
    ):
        try:
            yield
        finally:
            gc.set_threshold(*thresholds)


def _read_once() -> Callable[[type[Record], bytes, str], Record]:
    """`Record.from_bytes` that remembers: records never change, and a schedule reads the same few again and again."""
    read = Record.from_bytes.__func__  # type: ignore[attr-defined]
    known: dict[tuple[type[Record], bytes], Record] = {}

    def from_bytes(cls: type[Record], data: bytes, key: str) -> Record:
        record = known.get((cls, data))
        if record is None:
            if len(known) >= _REMEMBERED:
                known.clear()
            record = known[cls, data] = read(cls, data, key)
        return record

    return from_bytes


def simulate(
    seed: int, *, focus: str = "", trace: Callable[[str], None] | None = None, reconciled_times: int = 2
) -> Outcome:
    """Run the schedule of `seed` under `small_segments`; with `focus`, faults strike only keys that contain it.

    Raises: ScheduleFailedError; whatever bug of the protocol's code came out of it.
    """
    rng = random.Random(seed)
    world = World(rng, Weather.drawn(rng, focus), Habits.drawn(rng))
    world.scheduler.step_bound = STEP_BOUND
    rules = Rules(world)
    store = SimStore(world.memory, world.scheduler, world.faults, rules)
    store.trace = world.faults.trace = trace
    world.attach(store)
    try:
        Scenario(world, rules).begin()
        world.scheduler.run()
        judge(world, rules)
        world.faults.is_on = False
        reconcile_again(world, rules, reconciled_times)
    except AssertionError as error:
        again = f"python -m pagemill_core.testing.sim --seed {seed}{f' --focus {focus}' if focus else ''} --trace"
        raise ScheduleFailedError(f"seed {seed}: {error}; see it again: {again}") from error
    outcomes = tuple(job.outcome or "Deleted" for job in world.jobs)
    return Outcome(seed, world.scheduler.steps, world.scheduler.now_s, len(rules.entries), outcomes)
