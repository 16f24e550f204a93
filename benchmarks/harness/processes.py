"""Runs a command and accounts for all of it: wall time, CPU time and memory of its whole tree of processes.

Layer: `benchmarks.harness`. CPU time is what transfers from a busy machine to a quiet one, so every side's is taken.
"""

from __future__ import annotations

import bisect
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil  # type: ignore[import-untyped]

SAMPLE_EVERY_S = 0.25
LAST_WORDS_BYTES = 2000


class BenchmarkError(RuntimeError):
    """A side did not do its work, so that there is nothing to compare."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A process tree at one moment: `at` in seconds of the epoch, CPU seconds so far, memory by process."""

    at: float
    cpu_s: float
    rss_bytes: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. `log` takes its standard error; its standard output is kept."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    log: Path
    stdin: bytes = b""


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ended well. `cpu_s` is user and system time of the process and of all its children."""

    started_at: float
    wall_s: float
    cpu_s: float
    stdout: bytes
    samples: Sequence[Sample] = field(repr=False)

    def cpu_between(self, start: float, end: float) -> float:
        """CPU seconds between two moments, interpolated between samples."""
        return self._cpu_at(end) - self._cpu_at(start)

    def _cpu_at(self, moment: float) -> float:
        index = bisect.bisect([sample.at for sample in self.samples], moment)
        if index == 0:
            return self.samples[0].cpu_s if self.samples else 0.0
        if index == len(self.samples):
            return self.samples[-1].cpu_s
        before, after = self.samples[index - 1], self.samples[index]
        share = (moment - before.at) / (after.at - before.at)
        return before.cpu_s + share * (after.cpu_s - before.cpu_s)


class Watched:
    """A running process tree, sampled by a thread until it is closed; closing kills what is left of it."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self._over = threading.Event()
        self.samples: list[Sample] = []
        self.started_at = time.time()
        with command.log.open("ab") as log:
            self.process = subprocess.Popen(
                command.arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=command.folder,
                env=dict(command.environment),
                start_new_session=True,
            )
        self._root = psutil.Process(self.process.pid)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if self.process.poll() is None:
            self.stop()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def stop(self) -> None:
        """Kill the process and everything below it, whatever sessions they are in."""
        for process in self._tree():
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        self.process.wait()

    def sample(self) -> Sample:
        """The tree now."""
        cpu_s, rss = 0.0, {}
        for process in self._tree():
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    rss[process.pid] = int(process.memory_info().rss)
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
            cpu_s += times.user + times.system + times.children_user + times.children_system
        return Sample(time.time(), cpu_s, rss)

    def _tree(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_EVERY_S):
            self.samples.append(self.sample())


def run(command: Command) -> Finished:
    """Run a command to its end. Raises: BenchmarkError with its last words when it fails."""
    before_s = _children_cpu_s()
    with Watched(command) as watched:
        stdout, _ = watched.process.communicate(command.stdin)
        wall_s = time.time() - watched.started_at
    if watched.process.returncode != 0:
        words = command.log.read_bytes()[-LAST_WORDS_BYTES:] + stdout[-LAST_WORDS_BYTES:]
        raise BenchmarkError(
            f"{' '.join(command.arguments)} ended with status {watched.process.returncode}:\n"
            + words.decode(errors="replace")
        )
    cpu_s = _children_cpu_s() - before_s
    return Finished(watched.started_at, wall_s, cpu_s, stdout, tuple(watched.samples))


def _children_cpu_s() -> float:
    """CPU seconds of every process that we or our children have waited for; one command runs at a time."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
