"""Whether a store keeps the promises that exactly-once results rest on; one that does not is refused.

Layer: `core.storage`, over any backend. Makes some twenty requests and leaves nothing behind. That takes
milliseconds, save on the embedded server, which lets writers that contend for one key wait a second at a time.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pagemill_core.errors import PagemillError, RetriableError, StoreUnsuitableError
from pagemill_core.storage.folder import FolderStore
from pagemill_core.storage.store import ObjectStore

_RACERS = 8
_ATTEMPTS = 12
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.2
_FOLDER = ".pagemill/probe"
_NO_SWAP = "this store ignores If-Match; use one with conditional writes (docs/reference/stores.md)"


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What was found out. A store that lacks something is told by the error instead."""

    uri: str
    seconds: float
    racers: int


def probe(store: ObjectStore) -> ProbeReport:
    """Try creates, compare-and-swap and listing on a key of its own.

    Raises: StoreUnsuitableError saying what is missing; AccessDeniedError saying which right is; StoreUnavailableError.
    """
    started_s = time.monotonic()
    if isinstance(store, FolderStore):
        store.check_file_system()
    key = f"{_FOLDER}/{os.urandom(8).hex()}"
    try:
        _check_create(store, key)
        _check_swap(store, key)
        _check_listing(store, key)
    finally:
        with contextlib.suppress(PagemillError):  # the finding counts, not the left-over
            store.delete(key)
    _check_deleted(store, key)
    return ProbeReport(store.uri, time.monotonic() - started_s, _RACERS)


def _check_create(store: ObjectStore, key: str) -> None:
    def create(number: int) -> str | None:
        return _ask(lambda: store.put_if_absent(key, f"racer {number}".encode()))

    with ThreadPoolExecutor(_RACERS) as racers:
        winners = [number for number, token in enumerate(racers.map(create, range(_RACERS))) if token is not None]
    content = store.get(key).data
    # Nobody knows to have won where the winner's reply was lost; the object is then one racer's all the same.
    if len(winners) > 1 or (winners and content != f"racer {winners[0]}".encode()):
        raise StoreUnsuitableError(
            f"{store.uri}: {len(winners)} of {_RACERS} parallel creates of one object won",
            advice="this store ignores If-None-Match; use one with conditional writes (docs/reference/stores.md)",
        )


def _check_swap(store: ObjectStore, key: str) -> None:
    first = store.get(key).token
    second = store.put(key, b"second")
    if first == second:
        raise StoreUnsuitableError(f"{store.uri}: another content has the same token", advice=_NO_SWAP)
    if _ask(lambda: store.put_if_match(key, b"stale", first)) is not None:
        raise StoreUnsuitableError(f"{store.uri}: a stale compare-and-swap was accepted", advice=_NO_SWAP)
    _ask(lambda: store.put_if_match(key, b"third", second))
    if store.get(key).data != b"third":
        raise StoreUnsuitableError(f"{store.uri}: a correct compare-and-swap was refused", advice=_NO_SWAP)


def _ask(write: Callable[[], str | None]) -> str | None:
    """The answer to a conditional write that the store may first want asked again."""
    pause_s = _FIRST_PAUSE_S
    for _ in range(_ATTEMPTS - 1):
        try:
            return write()
        except RetriableError:
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    return write()


def _check_listing(store: ObjectStore, key: str) -> None:
    token = store.put(key, b"fourth")
    found = [info for info in store.list(key) if info.key == key]
    if len(found) != 1 or found[0].token != token or found[0].size != len(b"fourth"):
        raise StoreUnsuitableError(
            f"{store.uri}: a listing does not show what was just written", advice="use a strongly consistent store"
        )


def _check_deleted(store: ObjectStore, key: str) -> None:
    if store.head(key) is not None:
        raise StoreUnsuitableError(f"{store.uri}: an object is still there after it was deleted", advice="use another")
