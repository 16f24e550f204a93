"""Items that are local files: plain paths and file:// URIs.

Layer: `worker.fetch`. Only regular files are read: a FIFO would block for ever and a device has no end. A file's
content never reaches a message, so that a manifest which names a secret's file learns nothing from the refusal.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from pagemill_core.errors import ForbiddenAddress, StoreUnavailableError
from pagemill_worker.fetch.fetched import Fetched, Span, changed, failed, local_version, missing, too_large

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})
# The file system itself is away (network mounts): no item's fault.
_UNAVAILABLE = frozenset({errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN, errno.EHOSTUNREACH})


class LocalFetcher:
    """A `Fetcher` of local files. With `roots`, only files below one of them, symbolic links followed first."""

    def __init__(self, roots: Sequence[Path] | None = None) -> None:
        self._roots = None if roots is None else [Path(os.path.realpath(root)) for root in roots]

    def fetch(self, uri: str, *, expected_version: str | None = None, max_bytes: int) -> Fetched:
        with self._open(uri) as file:
            found = self._checked_stat(uri, file.fileno(), max_bytes)
            version = local_version(found)
            if expected_version is not None and version != expected_version:
                raise changed(uri)
            data = self._read(uri, file.fileno(), found.st_size)
            if len(data) != found.st_size or local_version(os.fstat(file.fileno())) != version:
                raise changed(uri)
        return Fetched(data, version, uri)

    def fetch_if_changed(self, uri: str, *, earlier_version: str, max_bytes: int) -> Fetched | None:
        with self._open(uri) as file:
            if local_version(os.fstat(file.fileno())) == earlier_version:
                return None
        return self.fetch(uri, max_bytes=max_bytes)

    def fetch_range(self, uri: str, span: Span, *, expected_version: str | None = None) -> Fetched:
        with self._open(uri) as file:
            version = local_version(self._checked_stat(uri, file.fileno(), None))
            try:
                data = os.pread(file.fileno(), span.length, span.start)
            except OSError as error:
                raise _item_error(uri, error) from error
            now = local_version(os.fstat(file.fileno()))
        if now != version or (expected_version is not None and now != expected_version):
            raise changed(uri)
        return Fetched(data, version, uri)

    def size_of(self, uri: str, *, expected_version: str | None = None) -> int:
        with self._open(uri) as file:
            found = self._checked_stat(uri, file.fileno(), None)
        if expected_version is not None and local_version(found) != expected_version:
            raise changed(uri)
        return found.st_size

    def _open(self, uri: str) -> _Descriptor:
        path = _local_path(uri)
        if self._roots is not None:
            path = Path(os.path.realpath(path))
            if not any(path.is_relative_to(root) for root in self._roots):
                raise ForbiddenAddress(f"{uri} lies outside the folders that may be read")
        try:
            # Non-blocking, or opening a FIFO would wait for its other end.
            return _Descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        except OSError as error:
            raise _item_error(uri, error) from error

    def _checked_stat(self, uri: str, descriptor: int, max_bytes: int | None) -> os.stat_result:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise failed(uri, "not a regular file")
        if max_bytes is not None and found.st_size > max_bytes:
            raise too_large(uri, found.st_size, max_bytes)
        return found

    def _read(self, uri: str, descriptor: int, size_bytes: int) -> bytes:
        try:
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(size_bytes)
        except OSError as error:
            raise _item_error(uri, error) from error


class _Descriptor:
    """An open file descriptor that a `with` closes; opening a folder as a Python file would raise too early."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number

    def __enter__(self) -> _Descriptor:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._number)


def _local_path(uri: str) -> Path:
    path = uri
    if uri.lower().startswith("file://"):
        host, _, below = uri[len("file://") :].partition("/")
        if host not in ("", "localhost"):
            raise failed(uri, "a file URI of another host")
        path = "/" + unquote(below)
    if "\0" in path:
        raise missing(uri)
    return Path(path)


def _item_error(uri: str, error: OSError) -> Exception:
    if error.errno in _ABSENT:
        return missing(uri)
    if error.errno in _UNAVAILABLE:
        return StoreUnavailableError(f"the file system of {uri} does not answer ({os.strerror(error.errno)})")
    return failed(uri, os.strerror(error.errno).lower() if error.errno else "it cannot be read")
