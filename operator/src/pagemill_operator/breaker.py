"""A circuit breaker: an endpoint that does not answer is asked by one at a time until it does.

Layer: the operator; pure. Without it, a thousand jobs on one dead endpoint would fill every thread with waiting.
"""

from __future__ import annotations

TRIP_AFTER = 5  # failures in a row
REST_S = 20.0


class Breaker:
    """Of one endpoint. `may_ask` before, then `answered` or `failed`. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._failures = 0
        self._asked_again_s: float | None = None

    def may_ask(self, now_s: float) -> bool:
        """Whether this caller may ask now; while open, one caller a rest may."""
        if self._failures < TRIP_AFTER or self._asked_again_s is None:
            return True
        if now_s - self._asked_again_s < REST_S:
            return False
        self._asked_again_s = now_s
        return True

    def answered(self) -> None:
        self._failures = 0
        self._asked_again_s = None

    def failed(self, now_s: float) -> None:
        self._failures += 1
        self._asked_again_s = now_s

    @property
    def is_open(self) -> bool:
        return self._failures >= TRIP_AFTER
