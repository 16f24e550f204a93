"""What a process may use: cgroups of both versions, nested and odd, and what is said of other processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from pagemill_worker import machine as machine_module
from pagemill_worker.machine import (
    boot_id,
    host_memory_bytes,
    machine,
    process_started,
    rss_bytes,
)
from pagemill_worker.work.step import memory_per_process

GIB = 1 << 30


def make_cgroup(root: Path, files: Mapping[str, str], membership: str) -> tuple[Path, Path]:
    for name, content in files.items():
        (root / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "fs" / name).write_text(content)
    (root / "membership").write_text(membership)
    return root / "fs", root / "membership"


@pytest.mark.parametrize(
    ("files", "membership", "want"),
    [
        ({"cpu.max": "max 100000\n", "memory.max": "max\n"}, "0::/\n", (64, None)),
        ({"cpu.max": "250000 100000\n", "memory.max": f"{2 * GIB}\n"}, "0::/\n", (2, 2 * GIB)),
        ({"cpu.max": "50000 100000\n"}, "0::/\n", (1, None)),
        (
            {"cpu.max": "max 100000\n", "memory.max": f"{8 * GIB}\n", "a/cpu.max": "400000 100000\n"}
            | {"a/memory.max": "max\n", "a/b/cpu.max": "300000 100000\n", "a/b/memory.max": f"{4 * GIB}\n"},
            "0::/a/b\n",
            (3, 4 * GIB),
        ),
        (
            {"a/memory.max": f"{GIB}\n", "a/b/memory.max": f"{4 * GIB}\n"},
            "0::/a/b\n",
            (64, GIB),
        ),
        (
            {"cpu,cpuacct/pod/cpu.cfs_quota_us": "150000\n", "cpu,cpuacct/pod/cpu.cfs_period_us": "100000\n"}
            | {"memory/pod/memory.limit_in_bytes": f"{GIB}\n"},
            "4:cpu,cpuacct:/pod\n3:memory:/pod\n",
            (1, GIB),
        ),
        (
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}
            | {"memory/memory.limit_in_bytes": "9223372036854771712\n"},
            "4:cpu:/\n3:memory:/\n",
            (64, None),
        ),
        ({"cpu.max": "what\n", "memory.max": "\n"}, "0::/../../..\n", (64, None)),
    ],
    ids=["v2-free", "v2-limited", "v2-half-a-core", "v2-nested", "v2-parent-tighter", "v1", "v1-free", "odd"],
)
def test_machine_limits_are_the_tightest_of_the_cgroup(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: Mapping[str, str],
    membership: str,
    want: tuple[int, int | None],
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    found = machine(*make_cgroup(tmp_path, files, membership))
    assert (found.cores, found.memory_bytes) == want


def test_machine_affinity_narrower_than_the_quota_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5})
    assert machine(*make_cgroup(tmp_path, {"cpu.max": "800000 100000\n"}, "0::/\n")).cores == 2


def test_machine_without_cgroups_is_the_hosts(tmp_path: Path) -> None:
    found = machine(tmp_path / "nowhere", tmp_path / "nothing")
    assert found.cores == len(os.sched_getaffinity(0))
    assert found.memory_bytes is None


def test_memory_per_process_is_its_share_of_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limited = machine_module.Machine(4, 8 * GIB)
    monkeypatch.setattr("pagemill_worker.work.step.machine", lambda: limited)
    assert memory_per_process(4) == int(8 * GIB * 0.9 / 4)


def test_memory_per_process_without_a_limit_is_a_share_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pagemill_worker.work.step.machine", lambda: machine_module.Machine(4, None))
    monkeypatch.setattr("pagemill_worker.work.step.host_memory_bytes", lambda: 16 * GIB)
    assert memory_per_process(2) == int(16 * GIB * 0.9 / 2)


def test_host_memory_is_read_in_bytes(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:       24576 kB\nMemFree: 1 kB\n")
    assert host_memory_bytes(tmp_path / "meminfo") == 24 << 20
    (tmp_path / "meminfo").write_text("MemFree: 1 kB\n")
    with pytest.raises(OSError, match="no MemTotal"):
        host_memory_bytes(tmp_path / "meminfo")


def test_process_that_is_gone_has_no_memory_and_no_start() -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    assert rss_bytes(pid) == 0
    assert process_started(pid) == ""


def test_process_that_runs_has_memory_and_a_start() -> None:
    assert rss_bytes(os.getpid()) > 1 << 20
    assert process_started(os.getpid()) == process_started(os.getpid()) != ""
    assert boot_id()
