"""How many calls at once an endpoint takes, found out by asking: more while it answers, half when it complains.

Layer: `worker.ocr`, pure but for one lock. The rule is that of TCP (additive increase, multiplicative decrease): no
endpoint says what it bears, it changes by the minute, and other processes use the same key.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from pagemill_core.clock import Clock


@dataclass(frozen=True, slots=True)
class Window:
    """How many calls may be in flight: `limit` rounded down. `epoch` counts the decreases."""

    limit: float
    ceiling: int
    epoch: int = 0

    def grown(self) -> Window:
        """After an answer: one more call for every `limit` answers, never above the ceiling."""
        return replace(self, limit=min(float(self.ceiling), self.limit + 1 / self.limit))

    def shrunk(self, *, asked_in_epoch: int) -> Window:
        """After a complaint: half, never below one.

        Complaints about calls made before the last decrease change nothing: a burst of them is one piece of news.
        """
        if asked_in_epoch != self.epoch:
            return self
        return replace(self, limit=max(1.0, self.limit / 2), epoch=self.epoch + 1)


class ConcurrencyLimiter:
    """One window shared by all threads that call one endpoint."""

    def __init__(self, *, ceiling: int, clock: Clock) -> None:
        self._window = Window(limit=float(ceiling), ceiling=ceiling)
        self._clock = clock
        self._changed = threading.Condition()
        self._in_flight = 0
        self._hold_until_s = 0.0
        self._answered_count = 0

    @contextmanager
    def slot(self) -> Iterator[int]:
        """Wait for a place, hold it inside the block; gives the epoch to report with."""
        with self._changed:
            self._changed.wait_for(lambda: self._in_flight < int(self._window.limit))
            self._in_flight += 1
            epoch = self._window.epoch
        try:
            yield epoch
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()

    def answered(self) -> None:
        """The endpoint gave an answer, of whatever use."""
        with self._changed:
            self._answered_count += 1
            self._window = self._window.grown()
            self._changed.notify_all()

    def complained(self, *, asked_in_epoch: int, hold_s: float = 0.0) -> None:
        """The endpoint was too busy; nobody should call it for `hold_s`."""
        with self._changed:
            self._window = self._window.shrunk(asked_in_epoch=asked_in_epoch)
            self._hold_until_s = max(self._hold_until_s, self._clock.monotonic_s() + hold_s)

    def hold_left_s(self) -> float:
        """Seconds until the endpoint may be called again; 0 when it may be now."""
        with self._changed:
            return max(0.0, self._hold_until_s - self._clock.monotonic_s())

    @property
    def limit(self) -> int:
        """Calls allowed at once, now."""
        with self._changed:
            return int(self._window.limit)

    @property
    def answered_count(self) -> int:
        """Answers so far, by which a page that always fails is told from an endpoint that is down."""
        with self._changed:
            return self._answered_count
