"""Running one point: here, as `pagemill run` in a process of its own, or on a cluster, as a job.

Layer: `cli.bench`. A runner times and reports; what a point is and where its row goes is not its business.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import yaml

from pagemill_cli.bench.job import Document
from pagemill_cli.bench.sweep import Point
from pagemill_cli.cluster.ending import EXIT_STOPPED, ending_of
from pagemill_cli.cluster.jobs import Jobs
from pagemill_cli.cluster.kinds import JobRef
from pagemill_core import errors
from pagemill_core.api.load import load_jobs
from pagemill_core.clock import Clock
from pagemill_core.errors import ClusterUnavailableError, InvalidSpecError, ItemError, PagemillError

TAIL_BYTES = 2000
_ADVICE = "mend what the message names and start the sweep again: points that are done are not run again"
LOOK_EVERY_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PointRun:
    """How a run went. `cpu_s` and `peak_rss_bytes` (of the largest process) are None where they cannot be seen."""

    started_at: str
    wall_s: float
    items: int
    failed: int
    cpu_s: float | None = None
    peak_rss_bytes: int | None = None


_CLASSES = {
    kind.exit_code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, PagemillError) and not issubclass(kind, ItemError)
}


def point_failed(point: Point, status: int, why: str) -> PagemillError:
    """The error of a run that ended with `status`; nothing of it is recorded, and the next try starts it anew."""
    kind = _CLASSES.get(status, PagemillError)
    return kind(f"point {point.id} ended with status {status}: {why}", advice=_ADVICE)


class PointRunner(Protocol):
    """Runs points, one after another."""

    source: str

    def run(self, document: Document, point: Point) -> PointRun:
        """Do a point's job from nothing to its end. Raises: PagemillError when it did not complete."""


class LocalRunner:
    """A `PointRunner` on this machine: a rank is a process, and every point starts the command anew."""

    source = "local"

    def __init__(self, clock: Clock, command: tuple[str, ...] = (sys.executable, "-m", "pagemill_cli.main")) -> None:
        self._clock = clock
        self._command = command

    def run(self, document: Document, point: Point) -> PointRun:
        with tempfile.TemporaryDirectory(prefix="pagemill-bench-") as folder:
            file, printed, told = (Path(folder) / name for name in ("job.yaml", "stdout", "stderr"))
            file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
            arguments = ["run", str(file), "--quiet", "--output", "json"]
            arguments += [] if point.world_size is None else ["--processes", str(point.world_size)]
            started_at, started = self._clock.now().isoformat(timespec="seconds"), self._clock.monotonic_s()
            with printed.open("wb") as out, told.open("wb") as err:
                process = subprocess.Popen(
                    [*self._command, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=err
                )
                try:
                    _, status, usage = os.wait4(process.pid, 0)
                except BaseException:
                    process.terminate()  # the command stops cleanly; its half-done output is never read
                    process.wait()
                    raise
            process.returncode = os.waitstatus_to_exitcode(status)
            wall_s = self._clock.monotonic_s() - started
            if process.returncode != 0:
                tail = (told.read_bytes() + printed.read_bytes())[-TAIL_BYTES:].decode(errors="replace").strip()
                raise point_failed(point, process.returncode, tail)
            items = yaml.safe_load(printed.read_text(encoding="utf-8"))["items"]
        return PointRun(
            started_at=started_at,
            wall_s=wall_s,
            cpu_s=usage.ru_utime + usage.ru_stime,
            peak_rss_bytes=usage.ru_maxrss * 1024,
            items=items["succeeded"],
            failed=items["failed"],
        )


class ClusterRunner:
    """A `PointRunner` on a cluster: one job a point, deleted when it is done; its output stays."""

    source = "cluster"

    def __init__(self, jobs: Jobs, clock: Clock, *, limit_s: float = 86_400) -> None:
        self._jobs = jobs
        self._clock = clock
        self._limit_s = limit_s

    def run(self, document: Document, point: Point) -> PointRun:
        (job,) = load_jobs(yaml.safe_dump(document), origin=point.id)
        submitted = self._jobs.submit(job, dry_run=False, force=False).job
        ref, until = JobRef(submitted.kind, submitted.name), self._clock.monotonic_s() + self._limit_s
        view = self._jobs.find(ref)
        while (ended := ending_of(view)) is None:
            if self._clock.monotonic_s() > until:
                raise point_failed(point, EXIT_STOPPED, f"it did not end in {self._limit_s:.0f} s")
            self._clock.sleep(LOOK_EVERY_S)
            try:
                view = self._jobs.find(ref)
            except ClusterUnavailableError:
                continue  # its job goes on without us
        if ended.exit_status != 0:
            raise point_failed(point, ended.exit_status, f"{ended.reason}: {ended.message}")
        status = view.status
        if status.start_time is None or status.completion_time is None or status.items is None:
            raise InvalidSpecError(f"point {point.id}: the cluster does not say when its job started and ended")
        self._jobs.delete(view)
        return PointRun(
            started_at=status.start_time.isoformat(timespec="seconds"),
            wall_s=(status.completion_time - status.start_time).total_seconds(),
            items=status.items.succeeded,
            failed=status.items.failed,
        )
