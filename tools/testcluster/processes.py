"""Starts the parts of a cluster as children of the keeper, and learns of their ends.

Layer: project tooling. `subprocess` is not used, since the keeper is pid 1 of a namespace at the node level and must
collect children that it never started; two collectors would steal from each other.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testcluster import linux


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended, in words: `exit status 2`, `signal 9`."""

    pid: int
    how: str


def start(command: Sequence[str], *, log: Path, folder: Path, environment: Mapping[str, str], fd: int = -1) -> int:
    """Start a program that dies with this process, its output appended to `log`. Returns: its pid.

    `fd`, when given, stays open in the program under its own number. Raises: OSError when there is no such program.
    """
    if not os.access(command[0], os.X_OK):
        raise FileNotFoundError(f"{command[0]} is not a program")
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    pid = os.fork()
    if pid:
        os.close(output)
        return pid
    try:  # in the child: nothing but exec may lead out of here
        linux.die_with_parent()
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        if fd >= 0:
            os.set_inheritable(fd, True)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(folder)
        os.execve(command[0], list(command), dict(environment))
    finally:
        os._exit(127)


def collect() -> list[Ended]:
    """Collect every child that has ended, without waiting."""
    found: list[Ended] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        code = os.waitstatus_to_exitcode(status)
        found.append(Ended(pid, f"exit status {code}" if code >= 0 else f"signal {-code}"))


def run(command: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> str:
    """Run a program to its end, which must be that of the only child that ends now. Returns: how it ended."""
    pid = start(command, log=log, folder=Path("/"), environment=environment)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return f"exit status {code}" if code >= 0 else f"signal {-code}"


def is_alive(pid: int) -> bool:
    """Whether a process of this pid exists and is no zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"
