"""What Pagemill asks of an object store. The contract stands here; backends say only how they differ.

Layer: `core.storage`, above `errors`; knows nothing of jobs or of the work protocol. One conformance suite
(tests/contract) runs over every backend. Keys are relative to the store's root, use "/" and never start with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What is known of an object without reading it.

    `token` changes whenever the content does and is opaque: compare it only with tokens of the same store and key.
    `meta` is empty in listings.
    """

    key: str
    size: int
    token: str
    meta: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Blob:
    """An object's whole content with the token it had when read."""

    data: bytes
    token: str
    meta: Mapping[str, str] = field(default_factory=dict)


class ObjectStore(Protocol):
    """A flat map of keys to bytes with two conditional writes, which everything else rests on.

    Shared by threads. Every method raises AccessDeniedError when a right is missing, ThrottledError when asked to
    slow down, and StoreUnavailableError when the outcome is unknown; after that a write may or may not have taken
    effect, and the caller decides (see core.work.conditional). Plain reads and plain puts are retried inside;
    conditional writes may be too, so a reply of "exists" can mean "you, a moment ago".
    """

    @property
    def uri(self) -> str:
        """Where the root is, as the user would write it, without credentials."""

    def get(self, key: str) -> Blob:
        """Read an object. Raises: ObjectNotFoundError."""

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
        """Read up to `length` bytes from `start`; fewer at the end, b"" past it.

        Raises: ObjectNotFoundError; PreconditionFailedError when the token is no longer `if_match`.
        """

    def head(self, key: str) -> ObjectInfo | None:
        """What is known of an object, with its `meta`; None when there is none."""

    def put(self, key: str, data: bytes, *, meta: Mapping[str, str] | None = None) -> str:
        """Write an object whatever was there, checked by the store against a checksum. Returns: its token."""

    def put_file(self, key: str, path: Path, *, meta: Mapping[str, str] | None = None) -> str:
        """Write a local file as an object, in parts when large; never seen half. Returns: its token."""

    def put_if_absent(self, key: str, data: bytes, *, meta: Mapping[str, str] | None = None) -> str | None:
        """Create an object in one request.

        Returns: its token, or None when the key exists (perhaps by this very call).
        """

    def put_if_match(self, key: str, data: bytes, token: str, *, meta: Mapping[str, str] | None = None) -> str | None:
        """Replace the object whose token is `token`. Returns: the new token, or None when it changed or is gone."""

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens when there is none."""

    def list(self, prefix: str, *, limit: int | None = None) -> Iterator[ObjectInfo]:
        """Objects whose keys start with `prefix` (a string, not a folder), in no promised order, at most `limit`.

        Sees every object written before the call. Streams: constant memory.
        """
