"""What may happen to Pagemill on a node, and a log of what its users saw meanwhile.

Layer: project tooling, for tests of faults; root. Every fault is one that a real cluster knows: processes are killed,
pods deleted, nodes drained, by the kernel's and Kubernetes' own means.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from pagemill_core.api.v1alpha1 import JobStatus
from testcluster.api import ApiError, Json
from testcluster.settings import NODE_NAME
from testcluster.stage import Stage

_OPERATOR = "app.kubernetes.io/component=operator"
_POLL_S = 0.2
_GROUP_POLL_S = 0.02
_KILL_PATIENCE_S = 60.0


def pids_of(pod: Json) -> list[int]:
    """The processes of a pod as this machine counts them, by the pod's control group."""
    mark, found = f"pod{pod['metadata']['uid']}", []
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if mark in path.read_text():
                found.append(int(path.parent.name))
    return sorted(found)


def kill_pod(pod: Json, program: str = "") -> int:
    """kill -9 of every process of a pod, or of those whose command line holds `program`. Returns: how many."""
    count = 0
    for pid in pids_of(pod):
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            if program in command and not command.startswith("/pause"):
                os.kill(pid, signal.SIGKILL)
                count += 1
    return count


def kill_operator(stage: Stage) -> None:
    """kill -9 of the operator's process as soon as there is one."""
    deadline = time.monotonic() + _KILL_PATIENCE_S
    while not any(kill_pod(pod, "pagemill-operator") for pod in stage.pods(_OPERATOR)):
        assert time.monotonic() < deadline, f"no operator to kill\n{stage.report()}"
        time.sleep(_POLL_S)


def running(stage: Stage, step: str = "work") -> list[Json]:
    """The pods of a step that run now and are not on their way out."""
    return [
        pod
        for pod in stage.pods(f"pagemill.dev/step={step}")
        if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
    ]


def until_running(stage: Stage, count: int = 1, *, most_s: float = 60.0) -> list[Json]:
    """Wait until at least so many work pods run. Returns: them."""
    stage.wait(lambda: len(running(stage)) >= count, f"{count} work pods", most_s=most_s)
    return running(stage)


@contextmanager
def drained(stage: Stage, job: str) -> Iterator[None]:
    """`kubectl drain` of the node's pods of one job; the node takes pods again at the end."""
    words = ["--ignore-daemonsets", "--delete-emptydir-data", "--timeout=90s"]
    try:
        stage.kubectl("drain", NODE_NAME, f"--pod-selector=pagemill.dev/job={job}", *words)
        yield
    finally:
        stage.kubectl("uncordon", NODE_NAME)


def used_retries(stage: Stage) -> dict[str, int]:
    """The failures that Kubernetes has counted against indexes, by pod: where it keeps them."""
    name = "batch.kubernetes.io/job-index-failure-count"
    counts = {pod["metadata"]["name"]: int(pod["metadata"]["annotations"].get(name, 0)) for pod in stage.pods()}
    return {pod: count for pod, count in counts.items() if count}


class StatusLog(threading.Thread):
    """Looks at a job's status all the time and keeps what must not be: progress or conditions lost."""

    def __init__(self, stage: Stage, name: str) -> None:
        super().__init__(daemon=True)
        self._stage, self._name = stage, name
        self._over = threading.Event()
        self.losses: list[str] = []
        self.phases: list[str] = []

    def run(self) -> None:
        uid, before = "", JobStatus()
        while not self._over.wait(_POLL_S):
            try:
                found = self._stage.read(self._name)
            except (OSError, HTTPException, ApiError):
                continue  # a fault of the API server's
            if found is None:
                continue
            now = JobStatus.model_validate(found.get("status") or {})
            if found["metadata"]["uid"] == uid:
                self._compare(before, now)
            uid, before = found["metadata"]["uid"], now
            if now.phase and now.phase not in self.phases[-1:]:
                self.phases.append(now.phase)

    def stop(self) -> None:
        self._over.set()
        self.join()

    def _compare(self, before: JobStatus, now: JobStatus) -> None:
        was, is_now = (status.items.succeeded if status.items else 0 for status in (before, now))
        if (is_now or 0) < (was or 0):
            self.losses.append(f"{was} items were done, then {is_now}")
        lost = {condition.type for condition in before.conditions or ()} - {one.type for one in now.conditions or ()}
        if lost:
            self.losses.append(f"conditions went away: {sorted(lost)}")


@contextmanager
def status_log(stage: Stage, name: str = "comics") -> Iterator[StatusLog]:
    """A StatusLog for the time of the block."""
    log = StatusLog(stage, name)
    log.start()
    try:
        yield log
    finally:
        log.stop()


class GroupKiller(threading.Thread):
    """Kills all processes of a work pod as soon as one of them holds more than `least_bytes`.

    It is what a kernel of control groups version 2 does at a pod's limit; one of version 1 kills a single process.
    """

    def __init__(self, stage: Stage, least_bytes: int) -> None:
        super().__init__(daemon=True)
        self._stage, self._least_bytes = stage, least_bytes
        self._over = threading.Event()
        self.kills = 0

    def run(self) -> None:
        pods: list[tuple[Json, list[Path]]] = []
        listed_s = 0.0
        while not self._over.wait(_GROUP_POLL_S):
            if time.monotonic() - listed_s > _POLL_S:
                pods, listed_s = [(pod, _groups_of(pod)) for pod in running(self._stage)], time.monotonic()
            for pod, groups in pods:
                self._look(pod, groups)

    def stop(self) -> None:
        self._over.set()
        self.join()

    def _look(self, pod: Json, groups: list[Path]) -> None:
        with contextlib.suppress(OSError):  # the group went away with its pod
            pids = [int(pid) for group in groups for pid in group.read_text().split()]
            if any(_resident_bytes(pid) > self._least_bytes for pid in pids):
                self.kills += bool(kill_pod(pod))


def _groups_of(pod: Json) -> list[Path]:
    """The lists of processes of a pod's containers."""
    roots = [Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")]
    root = next(root for root in roots if root.is_dir())
    return [path for path in root.glob(f"*/kubepods/*/pod{pod['metadata']['uid']}/*/cgroup.procs")]


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def group_killer(stage: Stage, *, least_bytes: int) -> Iterator[GroupKiller]:
    """A GroupKiller for the time of the block."""
    killer = GroupKiller(stage, least_bytes)
    killer.start()
    try:
        yield killer
    finally:
        killer.stop()
