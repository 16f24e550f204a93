"""The object store of the simulation: right, but its answers get lost, are refused, or take effect too late.

Layer: `core.testing.sim`. Wraps a `MemoryStore`. Each operation is one step of the scheduler; whatever takes effect is
shown to an observer at once, so that a rule is seen broken at the very write that breaks it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from pagemill_core.errors import StoreUnavailableError, ThrottledError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.storage.store import Blob, ObjectInfo
from pagemill_core.testing.sim.scheduler import Scheduler


class Fault(Enum):
    """What can go wrong with one operation."""

    REFUSED = "refused"  # 503 or 409: nothing happened
    THROTTLED = "throttled"  # 429: nothing happened
    LOST = "reply lost"  # it happened, and nobody was told
    ECHO = "echo"  # it happened, the store repeated it inside, and the repetition answers "exists"
    LATE = "late"  # a timeout; it happens later, perhaps after its process died
    STALL = "stall"  # the process hangs before the operation, and wakes as a zombie
    KILL = "kill"  # the process is gone before the operation


_OBJECTS = ("plan.json", "ocr_results/", "/published/", "/data/", "/rollup/", "_SUCCESS")
_FOCUSES = ("/commit/", "/commit/", "/runs/", "_SUCCESS", *_OBJECTS)
_WRITE_FAULTS = (Fault.REFUSED, Fault.THROTTLED, Fault.LOST, Fault.ECHO, Fault.LATE)


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad one world is: the chance of a fault per operation, which kinds occur, and how many at most.

    Faults strike only keys that contain `focus`: a race for one object needs two rare moments to meet.
    """

    focus: str
    chance: float
    kinds: tuple[Fault, ...]
    most: int
    late_s: float
    stall_s: float

    @classmethod
    def drawn(cls, rng: random.Random, focus: str = "") -> Weather:
        """Some worlds see every fault, some one kind only, a few none: a mix hides what a single kind shows."""
        kinds = tuple(Fault)
        if not focus and rng.random() < 0.6:
            focus = rng.choice(_FOCUSES)
        draw = rng.random()
        if draw < 0.45:
            kinds = (rng.choice(kinds),)
        elif draw < 0.75:
            kinds = tuple(rng.sample(kinds, 3))
        return cls(
            focus=focus,
            chance=rng.choice((0.1, 0.3, 0.6) if focus else (0.0, 0.02, 0.05, 0.12, 0.3)),
            kinds=kinds,
            most=rng.choice((3, 8, 25)),
            late_s=rng.choice((5.0, 120.0, 1500.0)),
            stall_s=rng.choice((40.0, 500.0, 1400.0, 4000.0)),
        )


class Faults:
    """Draws faults until they are spent or switched off."""

    def __init__(self, weather: Weather, scheduler: Scheduler) -> None:
        self.weather = weather
        self.is_on = True
        self.trace: Callable[[str], None] | None = None
        self._left = weather.most
        self._rng = scheduler.rng
        self._scheduler = scheduler
        self._of_process = tuple(kind for kind in weather.kinds if kind in (Fault.KILL, Fault.STALL))
        self._of_write = tuple(kind for kind in weather.kinds if kind in _WRITE_FAULTS)
        share = len(self._of_process) / len(weather.kinds)
        self._process_chance = weather.chance * share
        self._write_chance = weather.chance * (1 - share) * 2  # about half of all operations are reads
        if self._of_process and weather.chance:
            scheduler.on_step = self._strike

    def for_write(self, key: str) -> Fault | None:
        return self._draw(self._of_write, self._write_chance, key)

    def for_read(self, key: str) -> bool:
        return self._draw(self._of_write, self._write_chance / 4, key) in (Fault.REFUSED, Fault.THROTTLED)

    def length_s(self, mean_s: float) -> float:
        return self._rng.random() * 2 * mean_s

    def _draw(self, kinds: tuple[Fault, ...], chance: float, key: str) -> Fault | None:
        if not self.is_on or not kinds or self._left <= 0 or self.weather.focus not in key:
            return None
        if self._rng.random() >= chance:
            return None
        self._left -= 1
        return kinds[int(self._rng.random() * len(kinds))]

    def _strike(self, key: str) -> None:
        fault = self._draw(self._of_process, self._process_chance, key)
        if fault is Fault.KILL:
            self._say("killed")
            self._scheduler.kill_self()
        elif fault is Fault.STALL:
            self._say("stalled")
            self._scheduler.stall_self(self.length_s(self.weather.stall_s))
            self._say("woke")

    def _say(self, what: str) -> None:
        if self.trace:
            process = self._scheduler.current
            self.trace(f"{self._scheduler.now_s:9.1f} {process.name if process else '':<28} {what}")


class Observer(Protocol):
    """Sees every write that takes effect, after it did."""

    def wrote(self, key: str, before: Blob | None, after: Blob) -> None:
        """`key` held `before`, and holds `after` now."""


class SimStore:
    """An `ObjectStore` in front of a `MemoryStore`; all of a world's processes share the one behind it."""

    def __init__(self, memory: MemoryStore, scheduler: Scheduler, faults: Faults, observer: Observer) -> None:
        self.memory = memory
        self.trace: Callable[[str], None] | None = None
        self._scheduler = scheduler
        self._faults = faults
        self._observer = observer

    @property
    def uri(self) -> str:
        return self.memory.uri

    def get(self, key: str) -> Blob:
        self._read("GET", key)
        return self.memory.get(key)

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
        self._read("GET", key)
        return self.memory.get_range(key, start, length, if_match=if_match)

    def head(self, key: str) -> ObjectInfo | None:
        self._read("HEAD", key)
        return self.memory.head(key)

    def list(self, prefix: str, *, limit: int | None = None) -> Iterator[ObjectInfo]:
        self._read("LIST", prefix)
        return self.memory.list(prefix, limit=limit)

    def put(self, key: str, data: bytes, *, meta: Mapping[str, str] | None = None) -> str:
        token = self._write("PUT", key, lambda: self.memory.put(key, data, meta=meta), is_conditional=False)
        assert token is not None
        return token

    def put_file(self, key: str, path: Path, *, meta: Mapping[str, str] | None = None) -> str:
        return self.put(key, path.read_bytes(), meta=meta)

    def put_if_absent(self, key: str, data: bytes, *, meta: Mapping[str, str] | None = None) -> str | None:
        return self._write("CREATE", key, lambda: self.memory.put_if_absent(key, data, meta=meta))

    def put_if_match(self, key: str, data: bytes, token: str, *, meta: Mapping[str, str] | None = None) -> str | None:
        return self._write("SWAP", key, lambda: self.memory.put_if_match(key, data, token, meta=meta))

    def delete(self, key: str) -> None:
        raise AssertionError(f"nothing in the protocol deletes, but somebody deletes {key}")

    def _read(self, verb: str, key: str) -> None:
        self._scheduler.pause(key)
        is_refused = self._faults.for_read(key)
        if self.trace:
            self._say(verb, key, "refused" if is_refused else "")
        if is_refused:
            raise StoreUnavailableError(f"{verb} {key}: 503")

    def _write(self, verb: str, key: str, act: Callable[[], str | None], *, is_conditional: bool = True) -> str | None:
        self._scheduler.pause(key)
        fault = self._faults.for_write(key)
        if fault is Fault.THROTTLED:
            self._say(verb, key, fault.value)
            raise ThrottledError(f"{verb} {key}: 429", retry_after_s=self._faults.length_s(1.0))
        if fault is Fault.REFUSED:
            self._say(verb, key, fault.value)
            raise StoreUnavailableError(f"{verb} {key}: 503")
        if fault is Fault.LATE:
            self._say(verb, key, fault.value)
            delay_s = self._faults.length_s(self._faults.weather.late_s)
            self._scheduler.at(self._scheduler.now_s + delay_s, lambda: self._arrive(verb, key, act))
            raise StoreUnavailableError(f"{verb} {key}: timed out")
        result = self._apply(verb, key, act, "" if fault is None else fault.value)
        if fault is Fault.LOST:
            raise StoreUnavailableError(f"{verb} {key}: connection reset")
        return None if fault is Fault.ECHO and is_conditional else result

    def _arrive(self, verb: str, key: str, act: Callable[[], str | None]) -> None:
        self._apply(f"late {verb}", key, act)

    def _apply(self, verb: str, key: str, act: Callable[[], str | None], fault: str = "") -> str | None:
        before = self._peek(key)
        token = act()
        if self.trace:
            self._say(verb, key, f"{'exists or changed' if token is None else 'written'} {fault}")
        if token is not None:
            self._observer.wrote(key, before, self.memory.get(key))
        return token

    def _peek(self, key: str) -> Blob | None:
        return self.memory.get(key) if self.memory.head(key) is not None else None

    def _say(self, verb: str, key: str, outcome: str) -> None:
        if self.trace:
            process = self._scheduler.current
            who = process.name if process else "(in flight)"
            self.trace(f"{self._scheduler.now_s:9.1f} {who:<28} {verb:<11} {key} {outcome}".rstrip())
