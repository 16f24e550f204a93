"""Holding a run: renewing the ledger entry in the background and hearing what others wrote into it.

Layer: `cli.local`. One thread, one ledger, one entry; the driver asks, the thread writes.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

from pagemill_core.clock import Clock
from pagemill_core.errors import OutputBusyError, PagemillError
from pagemill_core.work.ledger import RENEW_EVERY_S, Held, Ledger
from pagemill_core.work.records import RunEntry

LOOK_EVERY_S = 10.0


class Heartbeat:
    """Keeps `held` ours while open. `entry` is the newest known state; `lost` says that the run was taken over."""

    def __init__(self, ledger: Ledger, held: Held, clock: Clock) -> None:
        self._ledger = ledger
        self._held = held
        self._clock = clock
        self._lock = threading.RLock()
        self._renewed_at = clock.monotonic_s()
        self._stopping = threading.Event()
        self._error: PagemillError | None = None
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    @property
    def held(self) -> Held:
        return self._held

    @property
    def entry(self) -> RunEntry:
        return self._held.entry

    @property
    def active_s(self) -> float:
        """Seconds at work on this run, over all owners, up to now."""
        return self.entry.active_seconds + self._clock.monotonic_s() - self._renewed_at

    @property
    def lost(self) -> bool:
        return self._error is not None

    def check(self) -> None:
        """Raises: OutputBusyError when the run was taken over, or the error that ended the heartbeat."""
        if self._error is not None:
            raise self._error

    def update(self, **fields: Any) -> Held:
        """Change the entry, counting the time at work so far. Raises: OutputBusyError when it is no longer ours."""
        with self._lock:
            self._renew()
            self._held = self._ledger.update(self._held, **fields)
            return self._held

    def _renew(self) -> None:
        now = self._clock.monotonic_s()
        self._held = self._ledger.renew(self._held, now - self._renewed_at)
        self._renewed_at = now

    def _beat(self) -> None:
        while not self._stopping.wait(LOOK_EVERY_S):
            try:
                self._look()
            except PagemillError as error:
                self._error = error
                return

    def _look(self) -> None:
        with self._lock:
            found = self._ledger.read(self.entry.seq)
            if not self._ledger.is_mine(found.entry) or found.entry.epoch != self.entry.epoch or found.entry.is_final:
                raise OutputBusyError(
                    f"run {found.entry.seq} was taken over by {found.entry.owner_name or 'another owner'}",
                    advice="what was committed stays; run the same file again to see how it ended",
                )
            self._held = found
            if self._clock.monotonic_s() - self._renewed_at >= RENEW_EVERY_S:
                self._renew()
