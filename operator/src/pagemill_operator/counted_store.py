"""A store that counts the operator's calls by operation and outcome: what they cost, and how they fail.

Layer: the operator; wraps any ObjectStore and changes nothing of what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from pagemill_core.errors import ObjectNotFoundError, PagemillError
from pagemill_core.storage.store import Blob, ObjectInfo, ObjectStore
from pagemill_operator.metrics import Metrics

T = TypeVar("T")
OK = "ok"
ABSENT = "absent"
LOST = "lost"  # a conditional write that somebody else won


class CountedStore:
    """An `ObjectStore` that tells `metrics` of each call. Outcomes: ok, absent, lost, or the error's reason."""

    def __init__(self, store: ObjectStore, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics

    @property
    def uri(self) -> str:
        return self._store.uri

    def get(self, key: str) -> Blob:
        return self._counted("get", lambda: self._store.get(key))

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
        return self._counted("get", lambda: self._store.get_range(key, start, length, if_match=if_match))

    def head(self, key: str) -> ObjectInfo | None:
        return self._counted("head", lambda: self._store.head(key), none=ABSENT)

    def put(self, key: str, data: bytes, *, meta: Mapping[str, str] | None = None) -> str:
        return self._counted("put", lambda: self._store.put(key, data, meta=meta))

    def put_file(self, key: str, path: Path, *, meta: Mapping[str, str] | None = None) -> str:
        return self._counted("put", lambda: self._store.put_file(key, path, meta=meta))

    def put_if_absent(self, key: str, data: bytes, *, meta: Mapping[str, str] | None = None) -> str | None:
        return self._counted("put", lambda: self._store.put_if_absent(key, data, meta=meta), none=LOST)

    def put_if_match(self, key: str, data: bytes, token: str, *, meta: Mapping[str, str] | None = None) -> str | None:
        return self._counted("put", lambda: self._store.put_if_match(key, data, token, meta=meta), none=LOST)

    def delete(self, key: str) -> None:
        self._counted("delete", lambda: self._store.delete(key))

    def list(self, prefix: str, *, limit: int | None = None) -> Iterator[ObjectInfo]:
        """Counted once, when it ends, fails or is let go of, however many pages it took."""
        outcome = OK
        try:
            yield from self._store.list(prefix, limit=limit)
        except PagemillError as error:
            outcome = error.reason
            raise
        finally:
            self._count("list", outcome)

    def _counted(self, operation: str, call: Callable[[], T], *, none: str = OK) -> T:
        try:
            answer = call()
        except ObjectNotFoundError:
            self._count(operation, ABSENT)
            raise
        except PagemillError as error:
            self._count(operation, error.reason)
            raise
        self._count(operation, none if answer is None else OK)
        return answer

    def _count(self, operation: str, outcome: str) -> None:
        self._metrics.store_call(operation, outcome)
