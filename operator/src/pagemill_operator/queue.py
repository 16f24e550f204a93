"""Which job is looked at next: each waits once, what a person did comes before what machines report.

Layer: the operator; pure, without tasks or clocks. `controller` wakes its workers by it, tests step through it.
One key is never handed out twice at a time: whatever is added meanwhile makes it wait again afterwards.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

K = TypeVar("K")

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 120.0


class Urgency(IntEnum):
    """The classes of the queue, the most urgent first."""

    USER = 0  # somebody applied, edited, suspended, scaled or deleted
    CHANGE = 1  # a Job ended, the store answered: conditions may change
    PROGRESS = 2  # time to count again


@dataclass(frozen=True, slots=True)
class Taken(Generic[K]):
    """A key to work on, and how long it waited."""

    key: K
    urgency: Urgency
    waited_s: float


class WorkQueue(Generic[K]):
    """Deduplicating, in classes, with delays and a growing pause after failures. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._ready: dict[Urgency, OrderedDict[K, float]] = {urgency: OrderedDict() for urgency in Urgency}
        self._busy: dict[K, Urgency | None] = {}  # -> how urgently it was added meanwhile
        self._later: list[tuple[float, int, K, Urgency]] = []
        self._due: dict[K, tuple[float, Urgency]] = {}  # the earliest wish counts; older entries of the heap are dead
        self._failures: dict[K, int] = {}
        self._order = itertools.count()

    def add(self, key: K, urgency: Urgency, now_s: float) -> None:
        """Make `key` wait; it keeps the more urgent of its classes and its place in it."""
        if key in self._busy:
            earlier = self._busy[key]
            self._busy[key] = urgency if earlier is None else min(earlier, urgency)
            return
        waiting = next((lane for lane in Urgency if key in self._ready[lane]), None)
        if waiting is None:
            self._ready[urgency][key] = now_s
        elif urgency < waiting:
            self._ready[urgency][key] = self._ready[waiting].pop(key)

    def add_after(self, key: K, urgency: Urgency, delay_s: float, now_s: float) -> None:
        """Make `key` wait once `delay_s` have passed; of several wishes the earliest counts."""
        due_s = now_s + delay_s
        known = self._due.get(key)
        if known is not None and known[0] <= due_s:
            return
        self._due[key] = (due_s, urgency)
        heapq.heappush(self._later, (due_s, next(self._order), key, urgency))

    def retry(self, key: K, now_s: float) -> float:
        """Make `key` wait again after a failure. Returns: the pause in seconds, doubling with each failure in a row."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        pause_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2.0**count)
        self.add_after(key, Urgency.CHANGE, pause_s, now_s)
        return pause_s

    def succeed(self, key: K) -> None:
        """End a row of failures."""
        self._failures.pop(key, None)

    def take(self, now_s: float) -> Taken[K] | None:
        """The next key to work on; `done` must follow. None when nothing is ready."""
        self._ripen(now_s)
        for urgency in Urgency:
            lane = self._ready[urgency]
            if lane:
                key, since_s = lane.popitem(last=False)
                self._busy[key] = None
                return Taken(key, urgency, now_s - since_s)
        return None

    def done(self, key: K, now_s: float) -> None:
        """Say that work on `key` is over."""
        again = self._busy.pop(key)
        if again is not None:
            self.add(key, again, now_s)

    def forget(self, key: K) -> None:
        """Drop the delays and failures of a key whose object is gone."""
        self._due.pop(key, None)
        self._failures.pop(key, None)

    def next_due_s(self) -> float | None:
        """When the next delayed key becomes ready, None when there is none."""
        while self._later and self._due.get(self._later[0][2], (None,))[0] != self._later[0][0]:
            heapq.heappop(self._later)
        return self._later[0][0] if self._later else None

    @property
    def depth(self) -> int:
        """Keys that are ready and wait."""
        return sum(len(lane) for lane in self._ready.values())

    def oldest_wait_s(self, now_s: float) -> float:
        """How long the key that waits longest has waited."""
        firsts = [next(iter(lane.values())) for lane in self._ready.values() if lane]
        return now_s - min(firsts) if firsts else 0.0

    def _ripen(self, now_s: float) -> None:
        while (due_s := self.next_due_s()) is not None and due_s <= now_s:
            _, _, key, urgency = heapq.heappop(self._later)
            del self._due[key]
            self.add(key, urgency, now_s)
