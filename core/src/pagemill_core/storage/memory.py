"""A store in this process's memory: for tests, the simulation and as the model other backends are compared with.

Layer: `core.storage`. Linearisable under one lock; loses everything with the process.
"""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pagemill_core.errors import ObjectNotFoundError, PreconditionFailedError
from pagemill_core.storage.keys import check_key, check_meta, check_prefix, check_reading_key, shown
from pagemill_core.storage.store import Blob, ObjectInfo

_NO_META: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Stored:
    data: bytes
    token: str
    meta: Mapping[str, str]


class MemoryStore:
    """Objects in a dict. Tokens are a counter, so even writing the same bytes again changes them."""

    def __init__(self, name: str = "store") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._objects: dict[str, _Stored] = {}
        self._sorted_keys: list[str] = []
        self._serials = itertools.count(1)

    @property
    def uri(self) -> str:
        return f"memory://{self._name}"

    def get(self, key: str) -> Blob:
        check_reading_key(key)
        stored = self._stored(key)
        return Blob(stored.data, stored.token, stored.meta)

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
        check_reading_key(key)
        stored = self._stored(key)
        if if_match is not None and stored.token != if_match:
            raise PreconditionFailedError(f"{shown(key)} in {self.uri} changed")
        return stored.data[start : start + length]

    def head(self, key: str) -> ObjectInfo | None:
        check_reading_key(key)
        stored = self._objects.get(key)
        return None if stored is None else ObjectInfo(key, len(stored.data), stored.token, stored.meta)

    def put(self, key: str, data: bytes, *, meta: Mapping[str, str] | None = None) -> str:
        check_key(key)
        kept = check_meta(meta)
        with self._lock:
            return self._write(key, data, kept)

    def put_file(self, key: str, path: Path, *, meta: Mapping[str, str] | None = None) -> str:
        return self.put(key, path.read_bytes(), meta=meta)

    def put_if_absent(self, key: str, data: bytes, *, meta: Mapping[str, str] | None = None) -> str | None:
        check_key(key)
        kept = check_meta(meta)
        with self._lock:
            return None if key in self._objects else self._write(key, data, kept)

    def put_if_match(self, key: str, data: bytes, token: str, *, meta: Mapping[str, str] | None = None) -> str | None:
        check_key(key)
        kept = check_meta(meta)
        with self._lock:
            stored = self._objects.get(key)
            if stored is None or stored.token != token:
                return None
            return self._write(key, data, kept)

    def delete(self, key: str) -> None:
        check_key(key)
        with self._lock:
            if self._objects.pop(key, None) is not None:
                del self._sorted_keys[bisect.bisect_left(self._sorted_keys, key)]

    def list(self, prefix: str, *, limit: int | None = None) -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        with self._lock:
            found = self._found(prefix, limit)
        return iter(found)

    def _found(self, prefix: str, limit: int | None) -> Sequence[ObjectInfo]:
        found: list[ObjectInfo] = []
        keys = self._sorted_keys
        for index in range(bisect.bisect_left(keys, prefix), len(keys)):
            key = keys[index]
            if not key.startswith(prefix) or len(found) == limit:
                break
            stored = self._objects[key]
            found.append(ObjectInfo(key, len(stored.data), stored.token))
        return found

    def _stored(self, key: str) -> _Stored:
        stored = self._objects.get(key)
        if stored is None:
            raise ObjectNotFoundError(f"there is no {shown(key)} in {self.uri}")
        return stored

    def _write(self, key: str, data: bytes, meta: dict[str, str]) -> str:
        if key not in self._objects:
            bisect.insort(self._sorted_keys, key)
        token = str(next(self._serials))
        self._objects[key] = _Stored(bytes(data), token, MappingProxyType(meta) if meta else _NO_META)
        return token
