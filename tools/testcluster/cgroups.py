"""The cluster's own control group in every hierarchy.

Why it exists: two kubelets on one group would delete each other's pods. Layer: project tooling, Linux, root.
Knows version 1 (one hierarchy per controller) and version 2 (one for all).
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
# The group's pods weigh as much as eight processes beside it: on a busy machine it would else get the time of one.
_WEIGHTS = {"cpu.shares": "8192", "cpu.weight": "800"}
_V2_CONTROLLERS = ("cpu", "cpuset", "hugetlb", "io", "memory", "pids")
_REMOVE_PATIENCE_S = 20.0
_POLL_S = 0.05


def is_unified() -> bool:
    """Whether this machine has version 2 alone."""
    return (CGROUP_ROOT / "cgroup.controllers").is_file()


def hierarchies() -> list[Path]:
    """The roots under which a group of one name exists: one for version 2, one per controller for version 1."""
    if is_unified():
        return [CGROUP_ROOT]
    return [path for path in sorted(CGROUP_ROOT.iterdir()) if path.is_dir() and not path.is_symlink()]


def make(name: str) -> None:
    """Make the group everywhere, ready for kubelet to put pods below it."""
    for root in hierarchies():
        group = root / name
        group.mkdir(exist_ok=True)
        if is_unified():
            _pass_on(root)
            _pass_on(group)
        for setting, value in _WEIGHTS.items():
            if (group / setting).is_file():
                (group / setting).write_text(value)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            inherited = root / setting
            # Version 1 starts these empty, and no process could then join.
            if not is_unified() and inherited.is_file():
                (group / setting).write_text(inherited.read_text())


def _pass_on(group: Path) -> None:
    """Let groups below have the controllers that this one has. What cannot be passed on, kubelet reports."""
    available = (group / "cgroup.controllers").read_text().split()
    for controller in _V2_CONTROLLERS:
        if controller in available:
            with contextlib.suppress(OSError):
                (group / "cgroup.subtree_control").write_text(f"+{controller}")


def remaining(name: str) -> list[Path]:
    """Where the group still exists."""
    return [root / name for root in hierarchies() if (root / name).is_dir()]


def remove(name: str) -> list[Path]:
    """Remove the group and all below it, killing what still runs there. Returns: what could not be removed in time."""
    deadline = time.monotonic() + _REMOVE_PATIENCE_S
    while left := remaining(name):
        for group in left:
            _kill(group)
            _remove_tree(group)
        if not (left := remaining(name)) or time.monotonic() > deadline:
            return left
        time.sleep(_POLL_S)
    return []


def _kill(group: Path) -> None:
    for listing in group.rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            for pid in listing.read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), 9)


def _remove_tree(group: Path) -> None:
    for folder, _, _ in os.walk(group, topdown=False):
        # A group is busy for a moment after its last process ended.
        with contextlib.suppress(OSError):
            os.rmdir(folder)
