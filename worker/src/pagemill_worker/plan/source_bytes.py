"""Bytes of a manifest, read by ranges, and the certainty that all of them belong to one version of it.

Layer: `worker.plan`; the only module here that reads a manifest's bytes, from a store or from a local file. A source
that changes under the planner ends the planning: half of one version and half of another is nobody's manifest.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import threading
import urllib.parse
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import zstandard

from pagemill_core.errors import ObjectNotFoundError, PreconditionFailedError, SourceError, UnsafeId
from pagemill_core.storage.store import ObjectStore
from pagemill_worker.fetch.fetched import local_version

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK_BYTES = 4 << 20  # arbitrary; 1 M rows of 80 bytes are 20 requests
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_FEED_BYTES = 1024  # 4 bytes can unpack to 128 KiB: this keeps a bomb to about 32 MiB at a time

StoreOpener = Callable[[str], ObjectStore]
"""Opens the store whose root is the given URI (`s3://bucket/`), as `core.storage.open_store` does."""


class OpenedStores:
    """A `StoreOpener` that opens each store once, for sources of a thousand files in one bucket. Shared by threads."""

    def __init__(self, open_store: StoreOpener) -> None:
        self._open_store = open_store
        self._lock = threading.Lock()
        self._stores: dict[str, ObjectStore] = {}

    def __call__(self, uri: str) -> ObjectStore:
        with self._lock:
            if uri not in self._stores:
                self._stores[uri] = self._open_store(uri)
            return self._stores[uri]


class Ranged(Protocol):
    """Bytes that can be read from anywhere."""

    size_bytes: int

    def read(self, start: int, length: int) -> bytes:
        """`length` bytes from `start`, fewer only at the end."""


class SourceBytes(Ranged, Protocol):
    """One version of one file; `read` raises SourceError when the file is another version now.

    `version` is what a later run compares.
    """

    uri: str
    version: str

    def read_later(self, start: int, length: int) -> Callable[[], bytes]:
        """Start to read; the answer waits for the bytes and raises what reading raises."""


class StoreBytes:
    """An object in a store; every range is asked for with its token."""

    def __init__(self, store: ObjectStore, key: str, uri: str) -> None:
        try:
            info = store.head(key)
        except UnsafeId as error:
            raise SourceError(f"{uri} cannot be an object: {error.message}") from error
        if info is None:
            raise SourceError(f"{uri} does not exist", advice="check the manifest's uri and the storage settings")
        self.uri = uri
        self.size_bytes = info.size
        self.version = info.token
        self._store = store
        self._key = key
        # One thread is enough: while a block is parsed, the next is fetched.
        self._ahead = ThreadPoolExecutor(max_workers=1, thread_name_prefix="source")

    def read_later(self, start: int, length: int) -> Callable[[], bytes]:
        return self._ahead.submit(self.read, start, length).result

    def close(self) -> None:
        self._ahead.shutdown(cancel_futures=True)

    def read(self, start: int, length: int) -> bytes:
        if start >= self.size_bytes:
            return b""
        try:
            data = self._store.get_range(self._key, start, length, if_match=self.version)
        except (PreconditionFailedError, ObjectNotFoundError) as error:
            raise _changed(self.uri) from error
        if len(data) != max(0, min(length, self.size_bytes - start)):
            raise _changed(self.uri)
        return data


class LocalBytes:
    """A local file, held open, compared by size, modification time and identity."""

    def __init__(self, path: Path) -> None:
        self.uri = str(path)
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            raise SourceError(f"{path} cannot be read: {_os_reason(error)}", advice="check the source's uri") from error
        seen = os.fstat(self._fd)
        if not stat.S_ISREG(seen.st_mode):
            self.close()
            raise SourceError(f"{path} is not a file", advice="name the manifest itself, not its folder")
        self.size_bytes = seen.st_size
        self.version = local_version(seen)
        self._identity = _identity(seen)

    def read_later(self, start: int, length: int) -> Callable[[], bytes]:
        return lambda: self.read(start, length)

    def read(self, start: int, length: int) -> bytes:
        wanted = max(0, min(length, self.size_bytes - start))
        data = os.pread(self._fd, wanted, start)
        if len(data) != wanted:
            raise _changed(self.uri)
        return data

    def check_unchanged(self) -> None:
        """Call after the last read. Raises: SourceError when the file is another version now."""
        try:
            now = os.stat(self._path)
        except OSError as error:
            raise _changed(self.uri) from error
        if _identity(now) != self._identity or _identity(os.fstat(self._fd)) != self._identity:
            raise _changed(self.uri)

    def close(self) -> None:
        os.close(self._fd)


def local_path(uri: str) -> Path | None:
    """The absolute local path of a path or file:// URI; None for any other scheme."""
    if uri.startswith("file://"):
        return Path("/" + urllib.parse.unquote(uri.removeprefix("file://").partition("/")[2]))
    return None if "://" in uri else Path(os.path.abspath(Path(uri).expanduser()))


def split_object(uri: str) -> tuple[str, str] | None:
    """The root of the store and the key, verbatim, of an s3:// or memory:// URI; None for any other."""
    scheme, found, rest = uri.partition("://")
    name, _, key = rest.partition("/")
    if not found or scheme.lower() not in ("s3", "memory"):
        return None
    return (f"s3://{name}/" if scheme.lower() == "s3" else f"memory://{name}"), key


@contextmanager
def open_source(uri: str, open_store: StoreOpener) -> Iterator[SourceBytes]:
    """The file at `uri`, checked to be the same version when the block ends well.

    Raises: SourceError when there is none, or when it changed meanwhile; the store's errors.
    """
    place = split_object(uri)
    if place:
        root, key = place
        with closing(StoreBytes(open_store(root), key, uri)) as source:
            yield source
        return
    path = local_path(uri)
    if path is None:
        raise SourceError(f"{uri} is neither a local path nor an s3:// URI")
    with closing(LocalBytes(path)) as local:
        yield local
        local.check_unchanged()


def read_blocks(source: SourceBytes) -> Iterator[bytes]:
    """The whole content in order, unpacked if it is gzip or Zstandard, the next block fetched meanwhile.

    Raises: SourceError when the compressed data is damaged or ends early.
    """
    magic = source.read(0, 4)
    if magic.startswith(_GZIP_MAGIC):
        return _gunzipped(source)
    if magic == _ZSTD_MAGIC:
        return _unzstandarded(source)
    return _raw_blocks(source)


def _raw_blocks(source: SourceBytes) -> Iterator[bytes]:
    # No thread is owned here: an abandoned generator is ended by the garbage collector, perhaps in that very thread.
    take = source.read_later(0, BLOCK_BYTES)
    for start in range(BLOCK_BYTES, source.size_bytes + BLOCK_BYTES, BLOCK_BYTES):
        block = take()
        take = source.read_later(start, BLOCK_BYTES)
        yield block


def _gunzipped(source: SourceBytes) -> Iterator[bytes]:
    unpacked = gzip.GzipFile(fileobj=io.BufferedReader(_Blocks(_raw_blocks(source)), BLOCK_BYTES))
    while True:
        try:
            block = unpacked.read(BLOCK_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            raise SourceError(f"{source.uri} is damaged gzip data: {error}") from error
        if not block:
            return
        yield block


def _unzstandarded(source: SourceBytes) -> Iterator[bytes]:
    frame: zstandard.ZstdDecompressionObj | None = None
    ready = bytearray()
    for block in _raw_blocks(source):
        for start in range(0, len(block), _ZSTD_FEED_BYTES):
            fed = block[start : start + _ZSTD_FEED_BYTES]
            while fed:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                try:
                    unpacked = frame.decompress(fed)
                except zstandard.ZstdError as error:
                    raise SourceError(f"{source.uri} is damaged Zstandard data: {error}") from error
                fed = frame.unused_data if frame.eof else b""
                frame = None if frame.eof else frame
                ready += unpacked
            if len(ready) >= BLOCK_BYTES:
                yield bytes(ready)
                ready.clear()
    yield bytes(ready)
    if frame is not None:
        raise SourceError(f"{source.uri} is damaged Zstandard data: it ends early")


class _Blocks(io.RawIOBase):
    """An iterator of blocks as a file that can only be read on."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        if not self._rest:
            self._rest = next(self._blocks, b"")
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class RangeFile(io.RawIOBase):
    """Ranged bytes as a seekable file, for readers that jump about (Parquet)."""

    def __init__(self, source: Ranged) -> None:
        self._source = source
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size_bytes}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._source.size_bytes - self._position)
        length = left if size is None or size < 0 else min(size, left)
        data = self._source.read(self._position, length) if length else b""
        self._position += len(data)
        return data

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


def _identity(seen: os.stat_result) -> tuple[int, int, int, int]:
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns


def _changed(uri: str) -> SourceError:
    return SourceError(f"{uri} changed while being read", advice="plan again when the source is at rest")


def _os_reason(error: OSError | ValueError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
