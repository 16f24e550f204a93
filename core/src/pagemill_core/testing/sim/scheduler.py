"""Processes that take turns by seed, on a clock that only counts.

Layer: `core.testing.sim`; knows nothing of the protocol. Each process is a greenlet, so that the protocol's plain
synchronous code runs unchanged and a switch costs about a microsecond. A process gives way before each store operation
and while it sleeps, nowhere else; that is enough, since between two operations nothing it does can be seen.
"""

from __future__ import annotations

import datetime as dt
import heapq
import random
from collections.abc import Callable
from typing import Any

from greenlet import GreenletExit, greenlet  # type: ignore[import-untyped]

from pagemill_core.errors import PagemillError

START_AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
LOST_AFTER_S = 60.0  # as a cluster gives up on a node that does not answer
_STEP_S = 0.2  # the longest an operation takes, arbitrary; its real length is drawn


class NotLiveError(AssertionError):
    """The world did not come to rest within its bound."""


class HostClock:
    """The clock of one machine: wall time off by `offset_s`, monotonic time from its own start."""

    def __init__(self, scheduler: Scheduler, offset_s: float) -> None:
        self._scheduler = scheduler
        self._offset_s = offset_s

    def now(self) -> dt.datetime:
        return START_AT + dt.timedelta(seconds=self._scheduler.now_s + self._offset_s)

    def monotonic_s(self) -> float:
        return self._scheduler.now_s + 7.0 * self._offset_s

    def sleep(self, seconds: float) -> None:
        self._scheduler.sleep(seconds)


class Process:
    """One simulated process. `error` is what ended it, if it ended badly; `was_killed` when nothing of it ran on.

    While it hangs, others take it for dead after `LOST_AFTER_S`, and it does not know.
    """

    __slots__ = ("ended", "error", "greenlet", "name", "owner", "stalled_since_s", "stop_asked", "was_killed")

    def __init__(self, name: str) -> None:
        self.name = name
        self.greenlet: Any = None
        self.ended = False
        self.was_killed = False
        self.stop_asked = False
        self.owner = ""
        self.stalled_since_s: float | None = None
        self.error: PagemillError | None = None

    @property
    def went_well(self) -> bool:
        return self.ended and not self.was_killed and self.error is None

    def looks_gone(self, now_s: float) -> bool:
        """Whether those who started it believe that it has ended."""
        if self.ended or self.was_killed:
            return True
        return self.stalled_since_s is not None and now_s - self.stalled_since_s >= LOST_AFTER_S


class Scheduler:
    """Runs processes one at a time; every choice comes from `rng`.

    `switchiness` is the chance that another process goes on after an operation. `on_step` is called before
    each operation and may kill or stall the current process through `kill_self` and `stall_self`.
    """

    def __init__(self, rng: random.Random, switchiness: float) -> None:
        self.rng = rng
        self.now_s = 0.0
        self.steps = 0
        self.step_bound = 0
        self.switchiness = switchiness
        self.current: Process | None = None
        self.on_step: Callable[[str], None] | None = None
        self._hub: Any = None
        self._ready: list[Process] = []
        self._timed: list[tuple[float, int, Process | Callable[[], object]]] = []
        self._serial = 0
        self._all: list[Process] = []

    # -- for processes ----------------------------------------------------------------------------------------------

    def pause(self, label: str) -> None:
        """Let time pass and others go first; the operation named by `label` happens after this returns."""
        process = self.current
        assert process is not None
        if process.was_killed:
            raise GreenletExit
        self.steps += 1
        if self.steps > self.step_bound:
            raise NotLiveError(f"still at work after {self.steps} operations, at {label}")
        self.now_s += self.rng.random() * _STEP_S
        if self.on_step is not None:
            self.on_step(label)
        if self.rng.random() < self.switchiness:
            self._ready.append(process)
            self._leave(process)

    def sleep(self, seconds: float) -> None:
        process = self.current
        assert process is not None
        if process.was_killed:
            raise GreenletExit
        self.at(self.now_s + seconds, process)
        self._leave(process)

    def stall_self(self, seconds: float) -> None:
        """Hang here, as a process on a cut-off machine does."""
        process = self.current
        assert process is not None
        process.stalled_since_s = self.now_s
        self.sleep(seconds)
        process.stalled_since_s = None

    def kill_self(self) -> None:
        """End here as kill -9 does: nothing of this process happens any more."""
        process = self.current
        assert process is not None
        process.was_killed = True
        raise GreenletExit

    # -- for the world ----------------------------------------------------------------------------------------------

    def spawn(self, name: str, body: Callable[[Process], None]) -> Process:
        process = Process(name)
        process.greenlet = greenlet(lambda: self._live(process, body))
        self._all.append(process)
        self._ready.append(process)
        return process

    def kill(self, process: Process) -> None:
        """Kill another process, wherever it is."""
        process.was_killed = True

    def at(self, when_s: float, what: Process | Callable[[], object]) -> None:
        """Wake a process, or let something happen, at a time."""
        self._serial += 1
        heapq.heappush(self._timed, (when_s, self._serial, what))

    def run(self) -> None:
        """Go on until nothing is left to do. Raises: what a process raised that is no PagemillError; NotLiveError."""
        self._hub = greenlet.getcurrent()
        try:
            while True:
                self._wake()
                if not self._ready:
                    break
                self._switch(self._pick())
        finally:
            self._bury()

    def _live(self, process: Process, body: Callable[[Process], None]) -> None:
        try:
            body(process)
        except PagemillError as error:
            process.error = error
        finally:
            process.ended = True

    def _leave(self, process: Process) -> None:
        self._hub.switch()
        if process.was_killed:
            raise GreenletExit

    def _switch(self, process: Process) -> None:
        if process.ended:
            return
        self.current = process
        process.greenlet.parent = self._hub
        process.greenlet.switch()
        self.current = None

    def _pick(self) -> Process:
        ready = self._ready
        index = int(self.rng.random() * len(ready))
        ready[index], ready[-1] = ready[-1], ready[index]
        return ready.pop()

    def _wake(self) -> None:
        timed = self._timed
        while timed and (timed[0][0] <= self.now_s or not self._ready):
            when_s, _, what = heapq.heappop(timed)
            self.now_s = max(self.now_s, when_s)
            if isinstance(what, Process):
                self._ready.append(what)
            else:
                what()

    def _bury(self) -> None:
        """Unwind what still stands somewhere, so that nothing of this world outlives it."""
        for process in self._all:
            process.was_killed = True
            if not process.greenlet.dead:
                self.current = process
                process.greenlet.parent = greenlet.getcurrent()
                process.greenlet.throw(GreenletExit)
        self.current = None
