"""Conditional writes whose outcome is always known in the end.

Layer: `core.work`. A store may answer a conditional write with "exists" although this very call created the object
(its reply was lost and the request repeated), or with nothing at all. The rules here turn every such answer into won
or lost, by repeating the *same* write and by asking whose bytes are there.

| answer | meaning | what is done |
|---|---|---|
| token | won | - |
| exists | someone's, perhaps ours | read it, let `is_mine` decide |
| exists, then not found | undecided | the same write again |
| unavailable, throttled | unknown | the same write again, full-jitter back-off, until the deadline |
| denied | credentials may have just rotated | again for five minutes if this process wrote before, else raised |
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from pagemill_core.clock import Clock
from pagemill_core.errors import (
    AccessDeniedError,
    ObjectNotFoundError,
    RetriableError,
    StoreFullError,
    StoreUnavailableError,
    ThrottledError,
)
from pagemill_core.storage.store import Blob, ObjectInfo, ObjectStore

T = TypeVar("T")
DENIED_PATIENCE_S = 300.0


UNDECIDED = (StoreUnavailableError, ThrottledError, AccessDeniedError)
"""What a write may answer without saying whether it happened, or will when repeated: see `Backoff.wait`."""


@dataclass
class Backoff:
    """Full-jitter exponential waiting up to a deadline; denials have a patience of their own.

    Source: M. Brooker, "Exponential Backoff And Jitter": sleep a uniform share of min(cap, base * 2^attempt).
    """

    clock: Clock
    rng: random.Random = field(default_factory=random.Random)
    base_s: float = 0.1
    cap_s: float = 10.0
    deadline_s: float = 600.0
    denied_patience_s: float = 0.0
    _since: dict[bool, float] = field(default_factory=dict)  # of denials, of everything else: when the first came
    _count: int = 0

    def wait(self, error: RetriableError | AccessDeniedError) -> None:
        """Sleep before the next try.

        Raises: `error` once the patience is used up; at once a denial without any, or that the store is full.
        """
        if isinstance(error, StoreFullError):
            raise error
        now = self.clock.monotonic_s()
        is_denied = isinstance(error, AccessDeniedError)
        since = self._since.setdefault(is_denied, now)
        pause = self.rng.uniform(0, min(self.cap_s, self.base_s * 2**self._count))
        if isinstance(error, RetriableError) and error.retry_after_s is not None:
            pause = max(pause, error.retry_after_s)
        limit = min(self.denied_patience_s, self.deadline_s) if is_denied else self.deadline_s
        if limit <= 0 or now - since + pause > limit:
            raise error
        self._count += 1
        self.clock.sleep(pause)


@dataclass
class Proof:
    """Whether a write of this process ever succeeded: from then on a denial may be credentials that just rotated."""

    given: bool = False


@dataclass(frozen=True)
class Writer:
    """Everything a protocol step needs to write: a store, a clock, randomness, and how patient to be."""

    store: ObjectStore
    clock: Clock
    rng: random.Random = field(default_factory=random.Random)
    deadline_s: float = 600.0
    proof: Proof = field(default_factory=Proof)

    def backoff(self) -> Backoff:
        patience_s = DENIED_PATIENCE_S if self.proof.given else 0.0
        return Backoff(self.clock, self.rng, deadline_s=self.deadline_s, denied_patience_s=patience_s)

    def retrying(self, call: Callable[[], T]) -> T:
        """Repeat an idempotent `call` until it answers. Raises: its error once the deadline has passed."""
        backoff = self.backoff()
        while True:
            try:
                return call()
            except UNDECIDED as error:
                backoff.wait(error)

    def get(self, key: str) -> Blob | None:
        """Read an object, None when there is none."""
        try:
            return self.retrying(lambda: self.store.get(key))
        except ObjectNotFoundError:
            return None

    def listing(self, prefix: str, limit: int | None = None) -> list[ObjectInfo]:
        """Every object below a prefix that is known to be short: a segment, the ledger, the waves."""
        return self.retrying(lambda: list(self.store.list(prefix, limit=limit)))

    def put(self, key: str, data: bytes) -> str:
        """Write an object that nobody else writes. Returns: its token."""
        token = self.retrying(lambda: self.store.put(key, data))
        self.proof.given = True
        return token


@dataclass(frozen=True, slots=True)
class Created:
    """The outcome of `create_once`: whether we won, and what is there now."""

    won: bool
    data: bytes
    token: str


def create_once(writer: Writer, key: str, data: bytes, is_mine: Callable[[bytes], bool]) -> Created:
    """Create `key` unless it exists, and know in the end whether this call's bytes are the ones that stay.

    `is_mine` sees the bytes found and says whether this very writer wrote them (an attempt id or a write nonce in
    them, never equality of content alone where two writers could write the same).
    Raises: AccessDeniedError, or the last RetriableError when the deadline has passed without an answer.
    """
    backoff = writer.backoff()
    while True:
        try:
            token = writer.store.put_if_absent(key, data)
            if token is not None:
                writer.proof.given = True
                return Created(True, data, token)
            found = writer.store.get(key)
            return Created(is_mine(found.data), found.data, found.token)
        except (*UNDECIDED, ObjectNotFoundError) as error:
            backoff.wait(error)


@dataclass(frozen=True, slots=True)
class Swapped:
    """The outcome of `swap_once`: `token` of our new content when `won`, else of nothing we know."""

    won: bool
    token: str


def swap_once(writer: Writer, key: str, data: bytes, token: str, is_mine: Callable[[bytes], bool]) -> Swapped:
    """Replace the object at `token` by `data`, and know in the end whether it happened.

    Raises: as `create_once`.
    """
    backoff = writer.backoff()
    while True:
        try:
            new_token = writer.store.put_if_match(key, data, token)
            if new_token is not None:
                writer.proof.given = True
                return Swapped(True, new_token)
            found = writer.store.get(key)
            return Swapped(is_mine(found.data), found.token)
        except ObjectNotFoundError:
            return Swapped(False, "")
        except UNDECIDED as error:
            backoff.wait(error)
