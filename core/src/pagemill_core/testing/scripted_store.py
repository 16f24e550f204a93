"""A store whose next answers are written down beforehand, to put code before one exact situation.

Layer: `core.testing`; wraps any `ObjectStore`. For faults by chance see `fault_store`.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import TypeVar

from pagemill_core.errors import AccessDeniedError, ObjectNotFoundError, StoreUnavailableError, ThrottledError
from pagemill_core.storage.store import Blob, ObjectInfo, ObjectStore

T = TypeVar("T")


class Answer(Enum):
    """What the next call of an operation meets."""

    OK = "as the store says"
    LOST = "it takes effect, and the reply is lost"
    REFUSED = "unavailable, nothing happens"
    THROTTLED = "asked to slow down by 2 s, nothing happens"
    DENIED = "denied, nothing happens"
    TOLD_EXISTS = "it takes effect, and a retry inside says that the object exists or changed"
    NOT_FOUND = "nothing is there, for a moment"


class ScriptedStore:
    """`script(operation, *answers)` queues answers; an operation without any goes well. `calls` lists (operation, key).

    `before` is called with operation and key ahead of each call, so that others can act in between.
    """

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner
        self.calls: list[tuple[str, str]] = []
        self.before: Callable[[str, str], None] | None = None
        self._answers: defaultdict[str, deque[Answer]] = defaultdict(deque)

    def script(self, operation: str, *answers: Answer) -> None:
        self._answers[operation].extend(answers)

    def forget(self) -> None:
        """Drop what is still queued: from here on everything goes well."""
        self._answers.clear()

    def count(self, operation: str) -> int:
        return sum(called == operation for called, _ in self.calls)

    @property
    def uri(self) -> str:
        return self.inner.uri

    def get(self, key: str) -> Blob:
        return self._do("get", key, lambda: self.inner.get(key))

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
        return self._do("get_range", key, lambda: self.inner.get_range(key, start, length, if_match=if_match))

    def head(self, key: str) -> ObjectInfo | None:
        try:
            return self._do("head", key, lambda: self.inner.head(key))
        except ObjectNotFoundError:
            return None

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
        return self._do("list", prefix, lambda: self.inner.list(prefix, limit=limit))

    def _do(self, operation: str, key: str, act: Callable[[], T]) -> T:
        answer = self._next(operation, key)
        if answer is Answer.NOT_FOUND:
            raise ObjectNotFoundError(f"{operation} {key}: not found")
        result = act()
        if answer is Answer.LOST:
            raise StoreUnavailableError(f"{operation} {key}: the reply was lost")
        return result

    def _do_if(self, operation: str, key: str, act: Callable[[], str | None]) -> str | None:
        answer = self._next(operation, key)
        token = act()
        if answer is Answer.LOST:
            raise StoreUnavailableError(f"{operation} {key}: the reply was lost")
        return None if answer is Answer.TOLD_EXISTS else token

    def _next(self, operation: str, key: str) -> Answer:
        self.calls.append((operation, key))
        if self.before is not None:
            self.before(operation, key)
        queued = self._answers[operation]
        answer = queued.popleft() if queued else Answer.OK
        if answer is Answer.REFUSED:
            raise StoreUnavailableError(f"{operation} {key}: 503")
        if answer is Answer.THROTTLED:
            raise ThrottledError(f"{operation} {key}: 429", retry_after_s=2.0)
        if answer is Answer.DENIED:
            raise AccessDeniedError(f"{operation} {key}: 403")
        return answer
