"""The system calls below `FolderStore`: walking without following links, temporary files, the lock, error mapping.

Layer: `core.storage`; knows nothing of objects or metadata. Every path is walked folder by folder through descriptors
with O_NOFOLLOW, so that no key and no link swapped in meanwhile leads out of the root.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pagemill_core.errors import (
    AccessDeniedError,
    PagemillError,
    StoreFullError,
    StoreUnavailableError,
    StoreUnsuitableError,
    UnsafeId,
)
from pagemill_core.storage.keys import shown

PRIVATE_FOLDER = ".pagemill-store"
_TEMPORARY = (PRIVATE_FOLDER, "tmp")
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # O_NONBLOCK: a pipe must not hold us
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK_PATIENCE_S = 30.0  # the lock is held for microseconds; only a stopped process keeps it longer
_STALE_TEMPORARY_S = 86_400.0  # far above any upload, so that nobody's file in the making is swept
_FOLDER_RACES = 20  # arbitrary: how often a folder may be removed as empty between opening and using it
_RANDOM = itertools.count(int.from_bytes(os.urandom(4), "big"))


@dataclass(frozen=True, slots=True)
class Temporary:
    """A finished but invisible file: `name` in the folder open as `folder`, and the token it keeps when moved."""

    folder: int
    name: str
    token: str


def token_of(status: os.stat_result) -> str:
    return f"{status.st_size:x}-{status.st_mtime_ns:x}"


def read_all(descriptor: int) -> bytes:
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read()


def write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


class Tree:
    """Files below one root folder, by keys whose parts are neither empty, "." nor ".."."""

    def __init__(self, root: Path, *, fsync: bool) -> None:
        self.root = root
        self._fsync = fsync

    def stat(self, key: str) -> os.stat_result | None:
        """The regular file's status; None where there is none. Raises: UnsafeId for a link."""
        with self._folder_of(key) as (folder, name):
            if folder is None:
                return None
            try:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                return None
        if stat.S_ISLNK(status.st_mode):
            raise _is_link(key)
        return status if stat.S_ISREG(status.st_mode) else None

    def open_file(self, key: str) -> int | None:
        """A descriptor for reading, the caller's to close; None where there is no regular file."""
        with self._folder_of(key) as (folder, name):
            if folder is None:
                return None
            try:
                descriptor = os.open(name, _READ_FLAGS, dir_fd=folder)
            except OSError as error:
                if error.errno == errno.ELOOP:
                    raise _is_link(key) from error
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENXIO):
                    return None
                raise
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        return None

    @contextlib.contextmanager
    def temporary(self, write: Callable[[int], None]) -> Iterator[Temporary]:
        """A file written by `write`, stamped and on disk, that no listing shows; removed afterwards unless moved."""
        folder = self._make_folder(_TEMPORARY)
        name = f"{os.getpid():x}-{next(_RANDOM):x}-{os.urandom(6).hex()}"
        try:
            descriptor = os.open(name, _CREATE_FLAGS, 0o666, dir_fd=folder)
            try:
                try:
                    token = self._fill(descriptor, write)
                finally:
                    os.close(descriptor)
                yield Temporary(folder, name, token)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
        finally:
            os.close(folder)

    def link(self, temporary: Temporary, key: str) -> bool:
        """Make the file visible as `key`, durably, unless something has that name. Returns: whether it did."""
        for _ in range(_FOLDER_RACES):
            folder, name = self._make_folder_of(key)
            try:
                os.link(temporary.name, name, src_dir_fd=temporary.folder, dst_dir_fd=folder)
                self._sync(folder)
            except FileExistsError:
                self._refuse_collision(folder, name, key)
                return False
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS):
                    raise _no_links(self.root) from error
                raise
            finally:
                os.close(folder)
            return True
        raise StoreUnavailableError(f"the folder of {shown(key)} in {self.root} is removed again and again")

    def rename(self, temporary: Temporary, key: str) -> None:
        """Make the file visible as `key` instead of what was there. `sync_folder_of` makes it durable."""
        for _ in range(_FOLDER_RACES):
            folder, name = self._make_folder_of(key)
            try:
                os.rename(temporary.name, name, src_dir_fd=temporary.folder, dst_dir_fd=folder)
            except FileNotFoundError:
                continue
            except OSError:
                self._refuse_collision(folder, name, key)
                raise
            finally:
                os.close(folder)
            return
        raise StoreUnavailableError(f"the folder of {shown(key)} in {self.root} is removed again and again")

    def unlink(self, key: str, *, is_durable: bool = True) -> None:
        with self._folder_of(key) as (folder, name):
            if folder is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
                    if is_durable:
                        self._sync(folder)

    def sync_folder_of(self, key: str) -> None:
        with self._folder_of(key) as (folder, _):
            if folder is not None:
                self._sync(folder)

    def remove_empty_folders_of(self, key: str) -> None:
        """Remove the folders above `key` that hold nothing, so that their names are free for objects."""
        parts = key.split("/")[:-1]
        while parts:
            folder = self._open_folder(parts[:-1])
            if folder is None:
                return
            try:
                os.rmdir(parts.pop(), dir_fd=folder)
            except OSError:  # not empty, or another was faster: both end the walk, and neither is an error
                return
            finally:
                os.close(folder)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the root's one lock, between threads and processes. Raises: StoreUnavailableError after 30 s."""
        folder = self._make_folder((PRIVATE_FOLDER,))
        try:
            lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=folder)
        finally:
            os.close(folder)
        try:
            self._wait_for(lock)
            yield
        finally:
            os.close(lock)

    def walk(self, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
        """Files and links whose keys start with `prefix`. Memory grows with folders seen, not with files."""
        head, _, start = prefix.rpartition("/")
        pending: list[tuple[tuple[str, ...], str]] = [(tuple(head.split("/")) if head else (), start)]
        while pending:
            parts, start = pending.pop()
            folder = self._open_folder(parts)
            if folder is None:
                continue
            try:
                for name, status in _entries(folder, start):
                    if stat.S_ISDIR(status.st_mode):
                        pending.append(((*parts, name), ""))
                    elif stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                        yield "/".join((*parts, name)), status
            finally:
                os.close(folder)

    def sweep_temporaries(self) -> None:
        """Remove temporary files that a killed process left more than a day ago."""
        folder = self._open_folder(_TEMPORARY)
        if folder is None:
            return
        try:
            for name, status in _entries(folder, ""):
                if stat.S_ISREG(status.st_mode) and time.time() - status.st_ctime > _STALE_TEMPORARY_S:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=folder)
        finally:
            os.close(folder)

    def _fill(self, descriptor: int, write: Callable[[int], None]) -> str:
        write(descriptor)
        # The kernel stamps in steps of up to 4 ms, too coarse to tell two writes apart; ours are to the nanosecond.
        now_ns = time.time_ns()
        os.utime(descriptor, ns=(now_ns, now_ns))
        self._sync(descriptor)
        return token_of(os.fstat(descriptor))

    def _sync(self, descriptor: int) -> None:
        if self._fsync:
            os.fsync(descriptor)

    def _wait_for(self, lock: int) -> None:
        deadline_s = time.monotonic() + _LOCK_PATIENCE_S
        pause_s = 0.0002
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline_s:
                    raise StoreUnavailableError(
                        f"another process holds the lock of {self.root}", advice="look for a stopped pagemill process"
                    ) from error
                time.sleep(pause_s)
                pause_s = min(pause_s * 2, 0.02)
            else:
                return

    @contextlib.contextmanager
    def _folder_of(self, key: str) -> Iterator[tuple[int | None, str]]:
        *parts, name = key.split("/")
        folder = self._open_folder(parts)
        try:
            yield folder, name
        finally:
            if folder is not None:
                os.close(folder)

    def _make_folder_of(self, key: str) -> tuple[int, str]:
        *parts, name = key.split("/")
        folder = self._make_folder(parts)
        return folder, name

    def _refuse_collision(self, folder: int, name: str, key: str) -> None:
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            return
        if stat.S_ISLNK(status.st_mode):
            raise _is_link(key)
        if stat.S_ISDIR(status.st_mode):
            raise UnsafeId(
                f"the key {shown(key)} is a folder in {self.root}", advice="give the object another name, or use S3"
            )

    def _open_folder(self, parts: Sequence[str]) -> int | None:
        """A descriptor of an existing folder, the caller's to close. Raises: UnsafeId when a link is in the way."""
        try:
            folder = os.open(self.root, _FOLDER_FLAGS & ~os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return None
        for part in parts:
            inner = _step(folder, part)
            os.close(folder)
            if inner is None:
                return None
            folder = inner
        return folder

    def _make_folder(self, parts: Sequence[str]) -> int:
        """A descriptor of a folder, made if need be, the caller's to close. Raises: UnsafeId when a file is there."""
        found = self._open_folder(parts)
        if found is not None:
            return found
        self.root.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.root, _FOLDER_FLAGS & ~os.O_NOFOLLOW)
        try:
            for part in parts:
                inner = self._make_step(folder, part)
                os.close(folder)
                folder = inner
        except BaseException:
            os.close(folder)
            raise
        return folder

    def _make_step(self, folder: int, part: str) -> int:
        for _ in range(_FOLDER_RACES):
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=folder)
                self._sync(folder)
            inner = _step(folder, part)
            if inner is not None:
                return inner
            with contextlib.suppress(FileNotFoundError):
                os.stat(part, dir_fd=folder, follow_symlinks=False)
                raise UnsafeId(
                    f"a folder {shown(part)} is needed in {self.root}, but an object has that name",
                    advice="give the object another name, or use S3",
                )
        raise StoreUnavailableError(f"the folder {shown(part)} in {self.root} is removed again and again")


def _step(folder: int, part: str) -> int | None:
    try:
        return os.open(part, _FOLDER_FLAGS, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISLNK(os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode):
            raise _is_link(part)
    return None


def _entries(folder: int, start: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(start) and entry.name != PRIVATE_FOLDER:
                with contextlib.suppress(FileNotFoundError):
                    yield entry.name, entry.stat(follow_symlinks=False)


def _is_link(name: str) -> UnsafeId:
    return UnsafeId(f"{shown(name)} is a symbolic link", advice="name the folder or file that the link points to")


def _no_links(root: Path) -> StoreUnsuitableError:
    return StoreUnsuitableError(
        f"the file system of {root} has no hard links, so two writers could both win",
        advice="use a local disk, NFS or S3",
    )


def mapped(error: OSError, what: str) -> PagemillError:
    """The error of ours that says what `error` means for `what`."""
    said = os.strerror(error.errno) if error.errno else type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "free or add disk space there; the same command goes on where it stopped"
        return StoreFullError(f"{what} was not written: {said}", advice=advice)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = "let the user that runs Pagemill read and write this folder"
        return AccessDeniedError(f"{what}: {said}", advice=advice)
    if error.errno == errno.ENAMETOOLONG:
        return UnsafeId(f"{what}: a part of the name is longer than the file system takes", advice="use S3")
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return StoreUnsuitableError(
            f"{what}: a file stands where a folder must be", advice="name a folder, or a place where there is nothing"
        )
    if error.errno == errno.EXDEV:
        advice = "choose a folder without another file system mounted below it"
        return StoreUnsuitableError(f"{what}: part of the folder lies on another file system", advice=advice)
    return StoreUnavailableError(f"{what}: {said}")
