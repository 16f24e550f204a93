"""What fetching an item's bytes means, whatever its URI: the contract stands here, the fetchers say how they differ.

Layer: `worker.fetch`, bottom; no I/O.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from pagemill_core.errors import FetchFailed, ImageMissing, ImageTooLarge, SourceChanged
from pagemill_core.storage.folder_files import token_of


@dataclass(frozen=True, slots=True)
class Fetched:
    """An item's bytes. `version` changes with them (etag, or size and mtime); None where the source gives none.

    `final_uri` is where they came from after redirects, as `shown_uri` writes it.
    """

    data: bytes
    version: str | None
    final_uri: str


class Fetcher(Protocol):
    """Reads items; shared by threads.

    A failure of the one item is an ItemError: ImageMissing ("Image file not found: …"), ImageTooLarge beyond
    `max_bytes`, FetchFailed, ForbiddenAddress. A source that as a whole does not answer or refuses us is no item's
    fault: RetriableError and AccessDeniedError pass through and end the attempt. Messages hold no query, no fragment
    and no user info of a URI: signatures and passwords live there.
    """

    def fetch(self, uri: str, *, expected_version: str | None = None, max_bytes: int) -> Fetched:
        """Read an item. Raises: as the class says; SourceChanged when its version is not `expected_version`."""

    def fetch_if_changed(self, uri: str, *, earlier_version: str, max_bytes: int) -> Fetched | None:
        """Read an item unless it still is `earlier_version`: then None. Raises: as the class says."""

    def fetch_range(self, uri: str, span: Span, *, expected_version: str | None = None) -> Fetched:
        """Read `span` of an item, less where the item ends before. Raises: as `fetch`, but never ImageTooLarge."""

    def size_of(self, uri: str, *, expected_version: str | None = None) -> int:
        """How many bytes the whole item has. Raises: as `fetch_range`."""


@dataclass(frozen=True, slots=True)
class Span:
    """`length` bytes from `start`."""

    start: int
    length: int


def shown_uri(uri: str) -> str:
    """`uri` as messages may show it: without user info, query and fragment; local paths and s3 keys stay whole."""
    scheme = uri.partition("://")[0].lower()
    if scheme not in ("http", "https"):
        return uri
    try:
        parts = urlsplit(uri)
        return f"{scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    except ValueError:
        return f"{scheme}://…"


def local_version(found: os.stat_result) -> str:
    """The version of a local file, for planner and worker alike: the token that a folder's listing gives it."""
    return token_of(found)


def missing(uri: str) -> ImageMissing:
    return ImageMissing(f"Image file not found: {shown_uri(uri)}")


def too_large(uri: str, size_bytes: int | None, max_bytes: int) -> ImageTooLarge:
    """`size_bytes` is None when reading stopped before the end."""
    found = f"{size_bytes} bytes, more than" if size_bytes is not None else "more bytes than"
    return ImageTooLarge(f"{shown_uri(uri)} has {found} the {max_bytes} allowed")


def changed(uri: str) -> SourceChanged:
    return SourceChanged(f"{shown_uri(uri)} changed after it was planned", advice="plan again to take the new file")


def failed(uri: str, why: str) -> FetchFailed:
    return FetchFailed(f"{shown_uri(uri)} could not be fetched: {why}")
