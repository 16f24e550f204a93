"""The test's end of `forked`: ask for runs of the command, hear how they ended.

Layer: `cli.testing`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, cast

from pagemill_cli.testing.strikes import Forked


@dataclass(frozen=True, slots=True)
class Ended:
    """How one run of the command ended: its exit status, negative for a signal, and what it printed."""

    status: int
    stdout: str
    stderr: str


class ForkedRuns:
    """`with ForkedRuns() as runs: runs.run(runs.request("run", "job.yaml"))`."""

    @classmethod
    @functools.cache
    def shared(cls) -> ForkedRuns:
        """One server for all tests of a process, ended with it: starting one takes seconds."""
        runs = cls()
        runs.__enter__()
        atexit.register(runs.__exit__, None, None, None)
        return runs

    def __enter__(self) -> ForkedRuns:
        self._scratch = Path(tempfile.mkdtemp(prefix="pagemill-forked-"))
        self._numbers = itertools.count()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pagemill_cli.testing.forked"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cast(IO[str], self._process.stdin).close()
        cast(IO[str], self._process.stdout).close()
        with contextlib.suppress(ProcessLookupError):  # runs that a failed test left, and whoever waits for them
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def request(self, *arguments: str) -> Forked:
        """A request without faults, to be changed with `dataclasses.replace`."""
        stem = self._scratch / str(next(self._numbers))
        return Forked(arguments=arguments, stdout=f"{stem}.out", stderr=f"{stem}.err")

    def run(self, request: Forked) -> Ended:
        """Run the command once and wait for its end."""
        return self.start(request).wait()

    def start(self, request: Forked) -> Running:
        """Start the command; others may be started beside it."""
        pid = self.ask(request.to_json())
        if pid <= 1:
            raise RuntimeError(f"{pid} is no process of ours")
        return Running(self, request, pid)

    def ask(self, asked: str) -> int:
        """One question to the server and its answer; late answers to questions that a time-out cut off are dropped."""
        stdin, stdout = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        number = str(next(self._numbers))
        stdin.write(f"{number} {asked}\n")
        stdin.flush()
        while answer := stdout.readline():
            answered, _, value = answer.partition(" ")
            if answered == number:
                return int(value)
        raise RuntimeError(f"the server ended with status {self._process.wait(10)}")


@dataclass(frozen=True)
class Running:
    """A run of the command that was started."""

    runs: ForkedRuns
    request: Forked
    pid: int

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait_until_stopped(self, timeout_s: float = 30.0) -> bool:
        """Whether the process stands still, by SIGSTOP, before it ends or the time is over."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            state = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
            if state in "TZ":
                return state == "T"
            time.sleep(0.005)
        return False

    def wait(self) -> Ended:
        """Wait for its end; nothing else can be asked of the server meanwhile."""
        status = self.runs.ask(str(self.pid))
        ended = Ended(status, _read(self.request.stdout), _read(self.request.stderr))
        for path in (self.request.stdout, self.request.stderr):
            Path(path).unlink()
        return ended


@contextlib.contextmanager
def folder_in_memory() -> Iterator[Path]:
    """A folder that is removed afterwards, in memory where the machine can."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="pagemill-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")
