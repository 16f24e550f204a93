"""The few system calls that Python 3.11 does not offer: namespaces, mounts, death with the parent.

Layer: project tooling, Linux only. Each function is one call of the C library; failures are OSError.
"""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
CLONE_NEWPID = 0x20000000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends, however that comes about."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends."""
    _checked(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def unshare(flags: int) -> None:
    """Leave namespaces; a new pid namespace begins with the next child."""
    _checked(_libc.unshare(flags), "unshare")


def enter_network(descriptor: int) -> None:
    """Move this thread into the network namespace behind an open /proc/PID/ns/net."""
    _checked(_libc.setns(descriptor, CLONE_NEWNET), "setns")


def mount(source: str | Path, target: str | Path, kind: str = "none", *, flags: int = 0, options: str = "") -> None:
    """Mount; the target must exist."""
    words = (os.fsencode(source), os.fsencode(target), kind.encode())
    result = _libc.mount(*words, ctypes.c_ulong(flags), options.encode())
    _checked(result, f"mount {source} on {target}")


def bind(source: Path, target: Path) -> None:
    """Mount a folder or a file a second time."""
    mount(source, target, flags=MS_BIND | MS_REC)


def make_mounts_private() -> None:
    """Keep what is mounted from now on out of other mount namespaces."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
