"""What a dead process is said to have died of: its exit status, or the error it named last.

Layer: `worker.work`, below `pool`; pure.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping

import pagemill_core.errors as error_tree
from pagemill_core.errors import PagemillError


def describe_status(status: int) -> str:
    """How a process ended, as part of a sentence."""
    if status < 0:
        return f"its process was killed by {signal.Signals(-status).name}"
    return f"its process ended with status {status}"


def fatal_error(message: Mapping[str, str]) -> PagemillError:
    """The error that a process called fatal, as its supervisor raises it."""
    kind = getattr(error_tree, message["class"], PagemillError)
    error: PagemillError = kind(message["message"], advice=message["advice"])
    return error
