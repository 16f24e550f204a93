"""Items that are objects: s3:// URIs, read through the stores of their buckets.

Layer: `worker.fetch`, above `core.storage`, which retries plain reads itself. A planned version goes along as a
condition, so that one request both checks and reads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from pagemill_core.errors import AccessDeniedError, ObjectNotFoundError, PreconditionFailedError
from pagemill_core.storage.store import ObjectInfo, ObjectStore
from pagemill_worker.fetch.fetched import Fetched, Span, changed, failed, missing, too_large

T = TypeVar("T")
OpenSource = Callable[[str], ObjectStore]  # a bucket's name to the store whose root is that bucket


class ObjectFetcher:
    """A `Fetcher` of s3://bucket/key URIs; each bucket's store is opened once."""

    def __init__(self, open_source: OpenSource) -> None:
        self._open_source = open_source
        self._stores: dict[str, ObjectStore] = {}
        self._readable: set[str] = set()  # buckets that gave us something
        self._lock = threading.Lock()

    def fetch(self, uri: str, *, expected_version: str | None = None, max_bytes: int) -> Fetched:
        return self._mapped(uri, lambda store, key: self._read(store, key, uri, expected_version, max_bytes))

    def fetch_range(self, uri: str, span: Span, *, expected_version: str | None = None) -> Fetched:
        def read(store: ObjectStore, key: str) -> Fetched:
            version = expected_version or _head(store, key, uri).token
            return Fetched(store.get_range(key, span.start, span.length, if_match=version), version, uri)

        return self._mapped(uri, read)

    def size_of(self, uri: str, *, expected_version: str | None = None) -> int:
        found = self._mapped(uri, lambda store, key: _head(store, key, uri))
        if expected_version is not None and found.token != expected_version:
            raise changed(uri)
        return found.size

    def _mapped(self, uri: str, read: Callable[[ObjectStore, str], T]) -> T:
        """What `read` gives for the object's store and key, the store's errors told as this item's or passed on."""
        bucket, key = _parsed(uri)
        store = self._store(bucket)
        try:
            found = read(store, key)
        except ObjectNotFoundError as error:
            raise missing(uri) from error
        except PreconditionFailedError as error:
            raise changed(uri) from error
        except AccessDeniedError as error:
            if self._bucket_answers(bucket, store, key):
                raise failed(uri, "access to this object is denied") from error
            raise
        self._readable.add(bucket)
        return found

    def fetch_if_changed(self, uri: str, *, earlier_version: str, max_bytes: int) -> Fetched | None:
        bucket, key = _parsed(uri)
        try:
            info = self._store(bucket).head(key)
        except AccessDeniedError:
            info = None  # `fetch` meets it again and tells whose fault it is
        if info is not None and info.token == earlier_version:
            return None
        return self.fetch(uri, max_bytes=max_bytes)

    def _read(self, store: ObjectStore, key: str, uri: str, version: str | None, max_bytes: int) -> Fetched:
        if version is None:
            info = _head(store, key, uri)
            if info.size > max_bytes:
                raise too_large(uri, info.size, max_bytes)
            version = info.token
        data = store.get_range(key, 0, max_bytes + 1, if_match=version)
        if len(data) > max_bytes:
            raise too_large(uri, None, max_bytes)
        return Fetched(data, version, uri)

    def _store(self, bucket: str) -> ObjectStore:
        with self._lock:
            if bucket not in self._stores:
                self._stores[bucket] = self._open_source(bucket)
            return self._stores[bucket]

    def _bucket_answers(self, bucket: str, store: ObjectStore, key: str) -> bool:
        """Whether a denial concerns one object alone: the bucket gave others, or may be listed."""
        if bucket in self._readable:
            return True
        try:
            next(iter(store.list(key, limit=1)), None)
        except AccessDeniedError:
            return False
        return True


def _head(store: ObjectStore, key: str, uri: str) -> ObjectInfo:
    info = store.head(key)
    if info is None:
        raise missing(uri)
    return info


def _parsed(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.partition("://")[2].partition("/")
    if not bucket or not key:
        raise failed(uri, "it names no object of a bucket")
    return bucket, key
