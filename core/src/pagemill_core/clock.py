"""Time, as something handed in, so that tests and the simulation decide what time it is.

Layer: the bottom; imports nothing of Pagemill.
"""

from __future__ import annotations

import datetime as dt
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for records, monotonic time for waiting. They may disagree: wall clocks jump."""

    def now(self) -> dt.datetime:
        """The current instant, aware, UTC."""

    def monotonic_s(self) -> float:
        """Seconds that never go back; only differences mean anything."""

    def sleep(self, seconds: float) -> None:
        """Return after about `seconds` of monotonic time."""


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC)

    def monotonic_s(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def iso(instant: dt.datetime) -> str:
    """`instant` as ISO 8601 in UTC to the millisecond, ending in Z: the form of every instant Pagemill writes."""
    return instant.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_iso(text: str) -> dt.datetime:
    """The instant written by `iso`. Raises: ValueError when `text` is none."""
    return dt.datetime.fromisoformat(text)
