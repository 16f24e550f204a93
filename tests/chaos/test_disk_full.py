"""A full disk: the command says so at once, leaves nothing half, and goes on after somebody made room."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pagemill_cli.testing.forked_runs import Ended, ForkedRuns, folder_in_memory
from pagemill_cli.testing.job_folder import JobFolder
from pagemill_cli.testing.promises import broken_promises, marker_tokens
from pagemill_cli.testing.strikes import Strike
from pagemill_core.storage.folder import FolderStore

PAGES: dict[str, str | None] = {f"p{number}": f"text of {number} " * 20 for number in range(40)}
SHARDING = {"sharding": {"itemsPerShard": 2}}
COMPLETE, FULL = 0, 75
DISK_BYTES = 4 << 20
_LIBC = ctypes.CDLL(None, use_errno=True)


class Stage:
    def __init__(self, root: Path, output: Path) -> None:
        self.folder = JobFolder(root, PAGES, {**SHARDING, "output": {"uri": str(output)}})
        self.store = FolderStore(output, fsync=False)

    def run(self, *strikes: Strike, **changes: Any) -> Ended:
        forked = ForkedRuns.shared()
        plain = forked.request("run", str(self.folder.file), "--quiet", "-p", "1")
        return forked.run(replace(plain, log=str(self.folder.log), strikes=strikes, **changes))


def can_mount() -> bool:
    """Whether a file system of our own may be mounted here."""
    with folder_in_memory() as root:
        if _LIBC.mount(b"none", os.fsencode(root), b"tmpfs", 0, b"size=64k"):
            return False
        _LIBC.umount2(os.fsencode(root), 2)
        return True


@pytest.fixture
def stage() -> Iterator[Stage]:
    with folder_in_memory() as root:
        yield Stage(root, root / "out")


def assert_told(ended: Ended) -> None:
    assert ended.status == FULL, ended
    assert "StoreFull" in ended.stderr
    assert "No space left on device" in ended.stderr
    assert "free or add disk space" in ended.stderr, "it does not say what to do"
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("room", [0, 2_000, 8_000, 20_000, 40_000, 60_000, 80_000], ids=lambda room: f"{room}B")
def test_full_store_is_told_at_once_and_work_goes_on_with_room(stage: Stage, room: int) -> None:
    ended = stage.run(room_bytes=room)
    assert_told(ended)
    tokens = marker_tokens(stage.store)
    assert stage.run().status == COMPLETE
    assert tokens.items() <= marker_tokens(stage.store).items()
    assert broken_promises(stage.store, list(PAGES)) == []


def mounts() -> list[str]:
    """A real file system where the kernel lets us have one: elsewhere the store above has to do."""
    return ["tmpfs"] if can_mount() else []


@pytest.mark.parametrize("kind", mounts())
def test_full_file_system_leaves_nothing_half(kind: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    assert _LIBC.mount(b"none", os.fsencode(disk), os.fsencode(kind), 0, f"size={DISK_BYTES}".encode()) == 0
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * (DISK_BYTES - (200 << 10)))
        stage = Stage(tmp_path, disk / "out")
        fills = 0
        while (ended := stage.run()).status != COMPLETE:
            assert_told(ended)
            fills += 1
            assert fills < 40, f"it never gets done: {ended.stderr}"
            ballast.write_bytes(b"x" * max(0, ballast.stat().st_size - (64 << 10)))
        assert fills >= 1, "the disk was never full"
        assert broken_promises(stage.store, list(PAGES)) == []
        left = [path for path in (disk / "out" / ".pagemill-store" / "tmp").iterdir()]
        assert left == [], "temporary files were left behind"
    finally:
        _LIBC.umount2(os.fsencode(disk), 2)
