"""The one door to an item's bytes: looks at the URI and hands it to who can read it.

Layer: `worker.fetch`, its front.
"""

from __future__ import annotations

from pagemill_worker.fetch.fetched import Fetched, Fetcher, Span, failed
from pagemill_worker.fetch.http import HttpFetcher
from pagemill_worker.fetch.local import LocalFetcher
from pagemill_worker.fetch.objects import ObjectFetcher


class SourceFetcher:
    """A `Fetcher` of local paths, file://, s3://, http:// and https:// URIs. Close it when done."""

    def __init__(self, *, local: LocalFetcher, objects: ObjectFetcher, http: HttpFetcher) -> None:
        self._local = local
        self._objects = objects
        self._http = http

    def fetch(self, uri: str, *, expected_version: str | None = None, max_bytes: int) -> Fetched:
        return self._for(uri).fetch(uri, expected_version=expected_version, max_bytes=max_bytes)

    def fetch_if_changed(self, uri: str, *, earlier_version: str, max_bytes: int) -> Fetched | None:
        return self._for(uri).fetch_if_changed(uri, earlier_version=earlier_version, max_bytes=max_bytes)

    def fetch_range(self, uri: str, span: Span, *, expected_version: str | None = None) -> Fetched:
        return self._for(uri).fetch_range(uri, span, expected_version=expected_version)

    def size_of(self, uri: str, *, expected_version: str | None = None) -> int:
        return self._for(uri).size_of(uri, expected_version=expected_version)

    def close(self) -> None:
        """Close idle connections."""
        self._http.close()

    def _for(self, uri: str) -> Fetcher:
        scheme, separator, _ = uri.partition("://")
        if not separator or scheme.lower() == "file" or "/" in scheme:
            return self._local
        known: dict[str, Fetcher] = {"s3": self._objects, "http": self._http, "https": self._http}
        found = known.get(scheme.lower())
        if found is None:
            raise failed(uri, "its scheme is none of file, s3, http and https")
        return found
