"""A store in a folder of a local or network file system: objects are plain files, readable by anything.

Layer: `core.storage`. A file becomes visible whole or not at all, by link(2) or rename(2); a process killed at any
point leaves at most a temporary file in `.pagemill-store`, which listings hide and a later writer sweeps.
What system calls it takes, and how it stays below its root, is in `folder_files`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pagemill_core.errors import ObjectNotFoundError, PreconditionFailedError, StoreUnavailableError, UnsafeId
from pagemill_core.storage import folder_files as files
from pagemill_core.storage.folder_check import check_file_system
from pagemill_core.storage.folder_meta import MetaFiles
from pagemill_core.storage.keys import check_key, check_meta, check_prefix, check_reading_key, shown
from pagemill_core.storage.store import Blob, ObjectInfo

_READS_OF_A_MOVING_FILE = 5  # arbitrary: only a program that writes the file in place can make us read again


class FolderStore:
    """Objects as files below one folder.

    The token is size and modification time in nanoseconds. Every write of ours stamps its file with the clock's
    full nanoseconds and under one lock, so tokens of one key never repeat, yet a listing of a million files reads none
    of them. Metadata lies in `.pagemill-store/meta`, so files hold nothing but their content.
    Symbolic links below the root are listed, but neither read nor written through.
    """

    def __init__(self, root: Path, *, fsync: bool = True) -> None:
        """Open the folder `root`; it need not exist, and nothing is written before the first put.

        `fsync=False` gives up what a power cut must not take (not what a kill must not): for tests only.
        """
        self._tree = files.Tree(Path(os.path.abspath(root)), fsync=fsync)
        self._meta = MetaFiles(self._tree)
        self._sweep = threading.Lock()
        self._is_swept = False

    @property
    def uri(self) -> str:
        return str(self._tree.root)

    @property
    def root(self) -> Path:
        return self._tree.root

    def get(self, key: str) -> Blob:
        self._check_reading(key)
        for _ in range(_READS_OF_A_MOVING_FILE):
            with self._reading(key) as descriptor:
                token = files.token_of(os.fstat(descriptor))
                data = files.read_all(descriptor)
                if files.token_of(os.fstat(descriptor)) != token:
                    continue
            meta = self._meta.read(key, token)
            if meta or self._token(key) == token:
                return Blob(data, token, meta)
        raise StoreUnavailableError(f"{self._name(key)} changes faster than it can be read")

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
        self._check_reading(key)
        with self._reading(key) as descriptor:
            data = os.pread(descriptor, length, start)
            if if_match is not None and files.token_of(os.fstat(descriptor)) != if_match:
                raise PreconditionFailedError(f"{self._name(key)} changed")
        return data

    def head(self, key: str) -> ObjectInfo | None:
        self._check_reading(key)
        for _ in range(_READS_OF_A_MOVING_FILE):
            with self._mapped(key):
                found = self._tree.stat(key)
            if found is None:
                return None
            token = files.token_of(found)
            meta = self._meta.read(key, token)
            if meta or self._token(key) == token:
                return ObjectInfo(key, found.st_size, token, meta)
        raise StoreUnavailableError(f"{self._name(key)} changes faster than it can be looked at")

    def put(self, key: str, data: bytes, *, meta: Mapping[str, str] | None = None) -> str:
        return self._put(key, lambda descriptor: files.write_all(descriptor, data), meta)

    def put_file(self, key: str, path: Path, *, meta: Mapping[str, str] | None = None) -> str:
        def copy(descriptor: int) -> None:
            with path.open("rb") as source, os.fdopen(os.dup(descriptor), "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)

        return self._put(key, copy, meta)

    def put_if_absent(self, key: str, data: bytes, *, meta: Mapping[str, str] | None = None) -> str | None:
        self._check(key)
        kept = check_meta(meta)
        if self._token(key) is not None:
            return None
        with self._temporary(key, lambda descriptor: files.write_all(descriptor, data)) as temporary:
            self._meta.write(key, temporary.token, kept)
            created = False
            try:
                created = self._tree.link(temporary, key)
            finally:
                if kept and not created:
                    self._meta.drop(key, temporary.token)
        return temporary.token if created else None

    def put_if_match(self, key: str, data: bytes, token: str, *, meta: Mapping[str, str] | None = None) -> str | None:
        self._check(key)
        kept = check_meta(meta)
        if self._token(key) != token:
            return None
        with self._temporary(key, lambda descriptor: files.write_all(descriptor, data)) as temporary:
            return temporary.token if self._replace(key, temporary, kept, expected=token) else None

    def delete(self, key: str) -> None:
        self._check(key)
        with self._mapped(key):
            if self._tree.stat(key) is None:
                return
            with self._tree.locked():
                token = self._token(key)
                self._tree.unlink(key)
            if token is not None:
                self._meta.drop(key, token)
            self._tree.remove_empty_folders_of(key)

    def list(self, prefix: str, *, limit: int | None = None) -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        return self._list(prefix, limit)

    def check_file_system(self) -> None:
        """Refuse a file system that cannot do what the contract needs; `probe` calls it.

        Raises: StoreUnsuitableError without hard links, locks that hold between processes, or fine time stamps.
        """
        with self._mapped(""):
            check_file_system(self._tree)

    @staticmethod
    def _check(key: str) -> None:
        check_key(key)
        _refuse_private(key)

    @staticmethod
    def _check_reading(key: str) -> None:
        check_reading_key(key)
        _refuse_private(key)

    def _list(self, prefix: str, limit: int | None) -> Iterator[ObjectInfo]:
        with self._mapped(prefix):
            for key, status in itertools.islice(self._tree.walk(prefix), limit):
                yield ObjectInfo(key, status.st_size, files.token_of(status))

    def _put(self, key: str, write: Callable[[int], None], meta: Mapping[str, str] | None) -> str:
        self._check(key)
        kept = check_meta(meta)
        with self._temporary(key, write) as temporary:
            self._replace(key, temporary, kept, expected=None)
        return temporary.token

    def _replace(self, key: str, temporary: files.Temporary, meta: dict[str, str], *, expected: str | None) -> bool:
        """Move the file to `key` when the token there is `expected` or nothing is expected. Returns: whether it did."""
        self._meta.write(key, temporary.token, meta)  # first, so that the object never shows without it
        obsolete: str | None = temporary.token
        try:
            with self._tree.locked():
                before = self._token(key)
                if expected is not None and before != expected:
                    return False
                if before == temporary.token:
                    raise StoreUnavailableError(f"two writes of {self._name(key)} fell into one nanosecond")
                self._tree.rename(temporary, key)
                obsolete = before
        finally:
            if obsolete is not None:
                self._meta.drop(key, obsolete)
        self._tree.sync_folder_of(key)
        return True

    @contextmanager
    def _temporary(self, key: str, write: Callable[[int], None]) -> Iterator[files.Temporary]:
        with self._mapped(key):
            self._sweep_once()
            with self._tree.temporary(write) as temporary:
                yield temporary

    def _sweep_once(self) -> None:
        if not self._is_swept and self._sweep.acquire(blocking=False):
            try:
                self._tree.sweep_temporaries()
                self._is_swept = True
            finally:
                self._sweep.release()

    @contextmanager
    def _reading(self, key: str) -> Iterator[int]:
        with self._mapped(key):
            descriptor = self._tree.open_file(key)
            if descriptor is None:
                raise ObjectNotFoundError(f"there is no {self._name(key)}")
            try:
                yield descriptor
            finally:
                os.close(descriptor)

    def _token(self, key: str) -> str | None:
        with self._mapped(key):
            found = self._tree.stat(key)
        return None if found is None else files.token_of(found)

    @contextmanager
    def _mapped(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise files.mapped(error, self._name(key)) from error

    def _name(self, key: str) -> str:
        return f"{shown(key)} in {self.uri}"


def _refuse_private(key: str) -> None:
    if files.PRIVATE_FOLDER in key and files.PRIVATE_FOLDER in key.split("/"):
        raise UnsafeId(f"the key {shown(key)} lies in the store's own folder", advice="give the object another name")
