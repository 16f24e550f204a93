"""A store that counts: what a protocol step costs in requests, and that a finished job asks for next to nothing.

Layer: `core.testing`; wraps any `ObjectStore`. Counts calls, not the requests a backend makes of them: a listing counts
once however many pages it has.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from pagemill_core.storage.store import Blob, ObjectInfo, ObjectStore


class RecordingStore:
    """`calls` counts by method name, `log` holds (method, key) in order, `written_bytes` and `read_bytes` content."""

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner
        self._lock = threading.Lock()
        self.reset()

    @property
    def uri(self) -> str:
        return self.inner.uri

    def reset(self) -> None:
        """Count from zero."""
        with self._lock:
            self.calls: Counter[str] = Counter()
            self.log: list[tuple[str, str]] = []
            self.written_bytes = 0
            self.read_bytes = 0

    def get(self, key: str) -> Blob:
        self._record("get", key)
        blob = self.inner.get(key)
        self._add(read_bytes=len(blob.data))
        return blob

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
        self._record("get_range", key)
        data = self.inner.get_range(key, start, length, if_match=if_match)
        self._add(read_bytes=len(data))
        return data

    def head(self, key: str) -> ObjectInfo | None:
        self._record("head", key)
        return self.inner.head(key)

    def put(self, key: str, data: bytes, *, meta: Mapping[str, str] | None = None) -> str:
        self._record("put", key)
        self._add(written_bytes=len(data))
        return self.inner.put(key, data, meta=meta)

    def put_file(self, key: str, path: Path, *, meta: Mapping[str, str] | None = None) -> str:
        self._record("put_file", key)
        self._add(written_bytes=path.stat().st_size)
        return self.inner.put_file(key, path, meta=meta)

    def put_if_absent(self, key: str, data: bytes, *, meta: Mapping[str, str] | None = None) -> str | None:
        self._record("put_if_absent", key)
        self._add(written_bytes=len(data))
        return self.inner.put_if_absent(key, data, meta=meta)

    def put_if_match(self, key: str, data: bytes, token: str, *, meta: Mapping[str, str] | None = None) -> str | None:
        self._record("put_if_match", key)
        self._add(written_bytes=len(data))
        return self.inner.put_if_match(key, data, token, meta=meta)

    def delete(self, key: str) -> None:
        self._record("delete", key)
        self.inner.delete(key)

    def list(self, prefix: str, *, limit: int | None = None) -> Iterator[ObjectInfo]:
        self._record("list", prefix)
        return self.inner.list(prefix, limit=limit)

    def _record(self, operation: str, key: str) -> None:
        with self._lock:
            self.calls[operation] += 1
            self.log.append((operation, key))

    def _add(self, *, read_bytes: int = 0, written_bytes: int = 0) -> None:
        with self._lock:
            self.read_bytes += read_bytes
            self.written_bytes += written_bytes
