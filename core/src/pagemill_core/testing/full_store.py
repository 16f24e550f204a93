"""A store with room for so many bytes and no more, as a disk that fills up.

Layer: `core.testing`; wraps any `ObjectStore`. What a real file system does half-way through a write is shown on a real
one; this says what callers make of the answer, wherever tests run.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from pagemill_core.storage.folder_files import mapped
from pagemill_core.storage.store import Blob, ObjectInfo, ObjectStore


class FullStore:
    """Refuses every write beyond `room_bytes`, replaced and deleted objects not given back."""

    def __init__(self, inner: ObjectStore, room_bytes: int) -> None:
        self.inner = inner
        self._room_bytes = room_bytes
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        return self.inner.uri

    def get(self, key: str) -> Blob:
        return self.inner.get(key)

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
        return self.inner.get_range(key, start, length, if_match=if_match)

    def head(self, key: str) -> ObjectInfo | None:
        return self.inner.head(key)

    def put(self, key: str, data: bytes, *, meta: Mapping[str, str] | None = None) -> str:
        self._take(key, len(data))
        return self.inner.put(key, data, meta=meta)

    def put_file(self, key: str, path: Path, *, meta: Mapping[str, str] | None = None) -> str:
        self._take(key, path.stat().st_size)
        return self.inner.put_file(key, path, meta=meta)

    def put_if_absent(self, key: str, data: bytes, *, meta: Mapping[str, str] | None = None) -> str | None:
        self._take(key, len(data))
        return self.inner.put_if_absent(key, data, meta=meta)

    def put_if_match(self, key: str, data: bytes, token: str, *, meta: Mapping[str, str] | None = None) -> str | None:
        self._take(key, len(data))
        return self.inner.put_if_match(key, data, token, meta=meta)

    def delete(self, key: str) -> None:
        self.inner.delete(key)

    def list(self, prefix: str, *, limit: int | None = None) -> Iterator[ObjectInfo]:
        return self.inner.list(prefix, limit=limit)

    def _take(self, key: str, size: int) -> None:
        with self._lock:
            if size > self._room_bytes:
                self._room_bytes = 0
                raise mapped(OSError(errno.ENOSPC, "full"), f"{key} in {self.uri}")
            self._room_bytes -= size
