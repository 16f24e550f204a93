"""Whether a file system can carry a `FolderStore`: hard links, locks between processes, fine time stamps.

Layer: `core.storage`; used by `FolderStore.check_file_system`, and by nothing in the common path.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pagemill_core.errors import StoreUnsuitableError
from pagemill_core.storage.folder_files import PRIVATE_FOLDER, Tree, write_all

# Another process, not a thread: some network file systems grant a lock to every thread of the process that has it.
_TRY_LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+b") as lock:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(9)
"""
_REFUSED = 9
_STAMPS = 3
_PATIENCE_S = 20.0
_ADVICE = "use a local disk, NFS version 4 or S3"


def check_file_system(tree: Tree) -> None:
    """Raises: StoreUnsuitableError naming what is missing; OSError when the folder cannot be written."""
    key = f"{PRIVATE_FOLDER}/probe-{os.getpid():x}-{os.urandom(6).hex()}"
    with tree.temporary(lambda descriptor: write_all(descriptor, b"probe")) as temporary:
        try:
            linked, again = tree.link(temporary, key), tree.link(temporary, key)
            found = tree.stat(key)
        finally:
            tree.unlink(key)
    if not linked or again or found is None:
        raise StoreUnsuitableError(f"hard links in {tree.root} do not tell who was first", advice=_ADVICE)
    if not _has_fine_stamps(tree):
        raise StoreUnsuitableError(f"the file system of {tree.root} keeps no fine time stamps", advice=_ADVICE)
    with tree.locked():
        _check_lock(tree.root / PRIVATE_FOLDER / "lock", tree.root)


def _has_fine_stamps(tree: Tree) -> bool:
    tokens = set()
    for _ in range(_STAMPS):
        with tree.temporary(lambda descriptor: write_all(descriptor, b"probe")) as temporary:
            tokens.add(temporary.token)
    return len(tokens) == _STAMPS


def _check_lock(lock: Path, root: Path) -> None:
    command = [sys.executable, "-I", "-S", "-c", _TRY_LOCK, str(lock)]
    exit_code = subprocess.run(command, check=False, timeout=_PATIENCE_S).returncode
    if exit_code != _REFUSED:
        raise StoreUnsuitableError(f"two processes both got the lock of {root}", advice=_ADVICE)
