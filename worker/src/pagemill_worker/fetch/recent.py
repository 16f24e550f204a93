"""Files of many pages, fetched once and not once a page.

Layer: `worker.fetch`; wraps any `Fetcher` for items that name a page. Pages of a file are neighbours in the plan, so a
few files kept are enough.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import CancelledError, Future

from pagemill_worker.fetch.cells import CellReader
from pagemill_worker.fetch.fetched import Fetched, Fetcher, Span

_Key = tuple[str, str | None]


class RecentFetcher:
    """A `Fetcher` that keeps the latest files, at most `keep_bytes` of them and always the last one, and in `cells`
    the tables that cells were read from last.

    Threads that want a file which another is fetching wait for that one. Failures are not kept.
    """

    def __init__(self, inner: Fetcher, *, keep_bytes: int) -> None:
        self._inner = inner
        self._keep_bytes = keep_bytes
        self._files: OrderedDict[_Key, Future[Fetched]] = OrderedDict()
        self._lock = threading.Lock()
        self.cells = CellReader(inner)

    def fetch(self, uri: str, *, expected_version: str | None = None, max_bytes: int) -> Fetched:
        key = (uri, expected_version)
        while True:
            future, is_mine = self._claim(key)
            if is_mine:
                return self._fill(key, future, max_bytes)
            try:
                return future.result()
            except CancelledError:
                continue  # the other's fetch failed: meet the failure ourselves

    def fetch_if_changed(self, uri: str, *, earlier_version: str, max_bytes: int) -> Fetched | None:
        return self._inner.fetch_if_changed(uri, earlier_version=earlier_version, max_bytes=max_bytes)

    def fetch_range(self, uri: str, span: Span, *, expected_version: str | None = None) -> Fetched:
        return self._inner.fetch_range(uri, span, expected_version=expected_version)

    def size_of(self, uri: str, *, expected_version: str | None = None) -> int:
        return self._inner.size_of(uri, expected_version=expected_version)

    def _claim(self, key: _Key) -> tuple[Future[Fetched], bool]:
        with self._lock:
            known = self._files.get(key)
            if known is not None:
                self._files.move_to_end(key)
                return known, False
            mine = self._files[key] = Future()
            return mine, True

    def _fill(self, key: _Key, future: Future[Fetched], max_bytes: int) -> Fetched:
        try:
            fetched = self._inner.fetch(key[0], expected_version=key[1], max_bytes=max_bytes)
            future.set_result(fetched)
        finally:
            with self._lock:
                if not future.done():
                    del self._files[key]
                    future.cancel()
                self._trim()
        return fetched

    def _trim(self) -> None:
        done = [(key, len(future.result().data)) for key, future in self._files.items() if future.done()]
        total = sum(size for _, size in done)
        for key, size in done[:-1]:
            if total <= self._keep_bytes:
                return
            del self._files[key]
            total -= size
