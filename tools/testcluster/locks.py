"""File locks that may be deleted: who waited for a file that is gone meanwhile takes the new one.

Layer: project tooling. flock: the kernel lets go when the holder ends, however that comes about.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def held(path: Path, *, is_shared: bool = False) -> Iterator[None]:
    """Hold the lock, waiting for it; alone, or beside others who share it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX)
            if _is_still(path, file):
                yield
                return


def is_held(path: Path) -> bool:
    """Whether anybody holds the lock; False also where there is no such file."""
    try:
        with path.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def remove_if_free(path: Path) -> bool:
    """Delete the lock's file unless somebody holds it. Returns: whether it is gone."""
    try:
        with path.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(path, file):
                path.unlink()
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True


def _is_still(path: Path, file: IO[str]) -> bool:
    try:
        return path.stat().st_ino == Path(f"/proc/self/fd/{file.fileno()}").stat().st_ino
    except FileNotFoundError:
        return False
