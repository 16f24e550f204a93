"""A store that misbehaves on command: every fault that the work protocol must survive, by seed, in pure Python.

Layer: `core.testing`; wraps any `ObjectStore`. Fast enough for simulations of millions of operations. The hooks around
each operation are where tests kill a worker and where a deterministic scheduler takes its turn.
"""

from __future__ import annotations

import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pagemill_core.clock import Clock
from pagemill_core.errors import AccessDeniedError, PagemillError, StoreUnavailableError, ThrottledError
from pagemill_core.storage.store import Blob, ObjectInfo, ObjectStore

T = TypeVar("T")
Hook = Callable[[str, str], None]

READS = frozenset(("get", "get_range", "head", "list"))
CONDITIONAL_WRITES = frozenset(("put_if_absent", "put_if_match"))
WRITES = frozenset(("put", "put_file", "delete")) | CONDITIONAL_WRITES
OPERATIONS = READS | WRITES


@dataclass(frozen=True, slots=True)
class FaultRates:
    """How often each fault strikes, from 0 to 1; at most one per operation, and a fault only where it can happen.

    lost_reply: a write takes effect, and the caller hears StoreUnavailableError.
    told_exists: a conditional write takes effect, and the caller hears None, as after a retry inside the backend.
    conflict: a conditional write is refused undecided (409).
    throttled, unavailable (503), denied (403): nothing happens.
    cut: a reply to a read ends early; a listing gives some of its objects first.
    slow: the operation takes `slow_s` on the store's clock first, then goes well.
    """

    lost_reply: float = 0.0
    told_exists: float = 0.0
    conflict: float = 0.0
    throttled: float = 0.0
    unavailable: float = 0.0
    denied: float = 0.0
    cut: float = 0.0
    slow: float = 0.0
    slow_s: float = 1.0


@dataclass(frozen=True, slots=True)
class FaultRule:
    """Rates for some operations on keys in which `pattern` (a regular expression) is found."""

    rates: FaultRates
    operations: frozenset[str] = OPERATIONS
    pattern: str = ""


_WHERE: Mapping[str, frozenset[str]] = {
    "lost_reply": WRITES,
    "told_exists": CONDITIONAL_WRITES,
    "conflict": CONDITIONAL_WRITES,
    "throttled": OPERATIONS,
    "unavailable": OPERATIONS,
    "denied": OPERATIONS,
    "cut": frozenset(("get", "get_range", "list")),
    "slow": OPERATIONS,
}


_REFUSALS: Mapping[str, type[PagemillError]] = {
    "conflict": StoreUnavailableError,
    "throttled": ThrottledError,
    "unavailable": StoreUnavailableError,
    "denied": AccessDeniedError,
}


@dataclass(slots=True)
class Hooks:
    """Called with the operation's name and key. What they raise goes to the caller, as a kill at that point would."""

    before: Hook | None = None
    after: Hook | None = None


@dataclass(frozen=True, slots=True)
class _Compiled:
    search: Callable[[str], object] | None
    thresholds: Mapping[str, tuple[tuple[float, str], ...]]
    slow_s: float


class FaultStore:
    """The first rule that fits an operation decides its rates; without one it goes well.

    Deterministic for one thread. `outage` and `hooks` may be set at any time; `struck` counts faults by name.
    """

    def __init__(
        self, inner: ObjectStore, rules: Sequence[FaultRule] = (), *, seed: int = 0, clock: Clock | None = None
    ) -> None:
        self.inner = inner
        self.outage = False
        self.hooks = Hooks()
        self.struck: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._clock = clock
        self.set_rules(rules)

    @property
    def uri(self) -> str:
        return self.inner.uri

    def set_rules(self, rules: Sequence[FaultRule]) -> None:
        """Go on with other rules, and the same sequence of chances."""
        self._rules = [_compiled(rule) for rule in rules]

    def get(self, key: str) -> Blob:
        return self._do("get", key, lambda: self.inner.get(key))

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
        return self._do("get_range", key, lambda: self.inner.get_range(key, start, length, if_match=if_match))

    def head(self, key: str) -> ObjectInfo | None:
        return self._do("head", key, lambda: self.inner.head(key))

    def put(self, key: str, data: bytes, *, meta: Mapping[str, str] | None = None) -> str:
        return self._do("put", key, lambda: self.inner.put(key, data, meta=meta))

    def put_file(self, key: str, path: Path, *, meta: Mapping[str, str] | None = None) -> str:
        return self._do("put_file", key, lambda: self.inner.put_file(key, path, meta=meta))

    def put_if_absent(self, key: str, data: bytes, *, meta: Mapping[str, str] | None = None) -> str | None:
        return self._do_if("put_if_absent", key, lambda: self.inner.put_if_absent(key, data, meta=meta))

    def put_if_match(self, key: str, data: bytes, token: str, *, meta: Mapping[str, str] | None = None) -> str | None:
        return self._do_if("put_if_match", key, lambda: self.inner.put_if_match(key, data, token, meta=meta))

    def delete(self, key: str) -> None:
        self._do("delete", key, lambda: self.inner.delete(key))

    def list(self, prefix: str, *, limit: int | None = None) -> Iterator[ObjectInfo]:
        """One operation, done at the call; a cut one raises after half of its objects."""
        fault = self._begin("list", prefix)
        found = tuple(self.inner.list(prefix, limit=limit))
        self._end("list", prefix)
        return _cut_listing(found, prefix) if fault == "cut" else iter(found)

    def _do(self, operation: str, key: str, act: Callable[[], T]) -> T:
        fault = self._begin(operation, key)
        result = act()
        self._end(operation, key)
        if fault in ("lost_reply", "cut"):
            raise StoreUnavailableError(f"{operation} {key}: the reply was lost")
        return result

    def _do_if(self, operation: str, key: str, act: Callable[[], str | None]) -> str | None:
        fault = self._begin(operation, key)
        token = act()
        self._end(operation, key)
        if fault == "lost_reply":
            raise StoreUnavailableError(f"{operation} {key}: the reply was lost")
        return None if fault == "told_exists" else token

    def _begin(self, operation: str, key: str) -> str:
        """Take the turn, draw a fault and raise it if nothing shall happen. Returns: the fault's name, "" for none."""
        before = self.hooks.before
        if before is not None:
            before(operation, key)
        if self.outage:
            raise StoreUnavailableError(f"{operation} {key}: the store is down")
        fault, slow_s = self._drawn(operation, key)
        if not fault:
            return ""
        with self._lock:
            self.struck[fault] += 1
        if fault == "slow" and self._clock is not None:
            self._clock.sleep(slow_s)
        refusal = _REFUSALS.get(fault)
        if refusal is not None:
            raise refusal(f"{operation} {key}: {fault}")
        return fault

    def _end(self, operation: str, key: str) -> None:
        after = self.hooks.after
        if after is not None:
            after(operation, key)

    def _drawn(self, operation: str, key: str) -> tuple[str, float]:
        for rule in self._rules:
            thresholds = rule.thresholds.get(operation)
            if thresholds is None or (rule.search is not None and not rule.search(key)):
                continue
            with self._lock:
                chance = self._random.random()
            for threshold, fault in thresholds:
                if chance < threshold:
                    return fault, rule.slow_s
            break
        return "", 0.0


def _compiled(rule: FaultRule) -> _Compiled:
    thresholds = {}
    for operation in rule.operations:
        total = 0.0
        steps = []
        for fault, operations in _WHERE.items():
            rate = getattr(rule.rates, fault)
            if rate > 0 and operation in operations:
                total += rate
                steps.append((total, fault))
        thresholds[operation] = tuple(steps)
    return _Compiled(re.compile(rule.pattern).search if rule.pattern else None, thresholds, rule.rates.slow_s)


def _cut_listing(found: tuple[ObjectInfo, ...], prefix: str) -> Iterator[ObjectInfo]:
    yield from found[: len(found) // 2]
    raise StoreUnavailableError(f"list {prefix}: the reply ended early")
