"""How others ask a keeper to stop or start one part: a line of JSON each way, on a socket in the cluster's folder.

Layer: project tooling.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testcluster.errors import ClusterError, NotRunningError

_PATIENCE_S = 120.0
_LINE_BYTES = 65536


@contextmanager
def _short_path(path: Path) -> Iterator[str]:
    """A path to the same place of at most 108 bytes, which is all that a socket's address holds."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listen(path: Path) -> socket.socket:
    """Listen for requests; what an earlier keeper left there is replaced."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    with _short_path(path) as short:
        listening.bind(short)
    listening.listen()
    return listening


def read(connection: socket.socket) -> dict[str, str]:
    """One message. Raises: ValueError when it is none, OSError when it does not come."""
    connection.settimeout(_PATIENCE_S)
    with connection.makefile("rb") as lines:
        message = json.loads(lines.readline(_LINE_BYTES))
    if not isinstance(message, dict):
        raise ValueError("a message is an object")
    return {str(name): str(value) for name, value in message.items()}


def write(connection: socket.socket, message: dict[str, str]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def ask(path: Path, verb: str, part: str) -> None:
    """Have the keeper stop, start or kill a part; returns when it is done. Raises: ClusterError with the reason."""
    with socket.socket(socket.AF_UNIX) as connection, _short_path(path) as short:
        try:
            connection.connect(short)
        except OSError as error:
            raise NotRunningError(f"the cluster's keeper does not answer: {error}") from error
        write(connection, {"do": verb, "part": part})
        problem = read(connection)["problem"]
    if problem:
        raise ClusterError(problem)
