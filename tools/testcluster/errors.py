"""What can go wrong with a test cluster, each with the words a person needs next.

ClusterError
├─ BuildError          a program could not be built; holds the end of the build's log
├─ MissingError        something of the system is not there: root, a package, Go
├─ PartFailedError     a part of the cluster died or never became ready; names it, holds the end of its log
└─ NotRunningError     no cluster of that name stands
"""

from __future__ import annotations

from pathlib import Path

TAIL_LINES = 20


class ClusterError(Exception):
    """Base of all."""


class BuildError(ClusterError):
    """A program could not be built."""


class MissingError(ClusterError):
    """The machine lacks something that the cluster needs."""


class PartFailedError(ClusterError):
    """A part of the cluster died or did not become ready in time."""


class NotRunningError(ClusterError):
    """No cluster of that name stands."""


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log, or a word that there are none."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return f"{log} was not written"
    last = text.splitlines()[-lines:]
    return "\n".join([f"--- the end of {log}", *last]) if last else f"{log} is empty"
