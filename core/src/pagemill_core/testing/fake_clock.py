"""A clock that tests move by hand, so that hours of waiting take no time and every run sees the same instants.

Layer: `core.testing`; used by tests and the simulation, never by production code.
"""

from __future__ import annotations

import datetime as dt
import threading

START_AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class FakeClock:
    """A `Clock` whose `sleep` returns at once and moves time forward. Safe to share between threads.

    All threads live on one timeline: whoever sleeps moves everybody, so that two parallel sleeps of 10 s add up to
    20 s. Monotonic time starts at 0; wall time at `start_at`, and follows until `jump_wall` sets it apart.
    """

    def __init__(self, start_at: dt.datetime = START_AT) -> None:
        if start_at.tzinfo is None:
            raise ValueError("start_at must be aware")
        self._lock = threading.Lock()
        self._wall_zero_at = start_at.astimezone(dt.UTC)
        self._elapsed_s = 0.0
        self._sleeps: list[float] = []

    def now(self) -> dt.datetime:
        with self._lock:
            return self._wall_zero_at + dt.timedelta(seconds=self._elapsed_s)

    def monotonic_s(self) -> float:
        with self._lock:
            return self._elapsed_s

    def sleep(self, seconds: float) -> None:
        """Move time by `seconds` and remember the wish. Raises: ValueError when negative, as the real one does."""
        if seconds < 0:
            raise ValueError(f"sleep length must be non-negative, got {seconds}")
        with self._lock:
            self._sleeps.append(seconds)
            self._elapsed_s += seconds

    def advance(self, seconds: float) -> None:
        """Move time as if it had passed while nobody slept. Raises: ValueError when negative."""
        if seconds < 0:
            raise ValueError(f"time does not go back, got {seconds}")
        with self._lock:
            self._elapsed_s += seconds

    def jump_wall(self, seconds: float) -> None:
        """Set the wall clock forward or (negative) back; monotonic time stays as it is."""
        with self._lock:
            self._wall_zero_at += dt.timedelta(seconds=seconds)

    @property
    def sleeps(self) -> tuple[float, ...]:
        """Every sleep asked for so far, of all threads, in order, in seconds."""
        with self._lock:
            return tuple(self._sleeps)
