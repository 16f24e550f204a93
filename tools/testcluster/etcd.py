"""Does to a cluster's etcd what no client of the API server can: forget the history that watches go on from.

Layer: project tooling, for tests of faults. Speaks etcd's JSON form of its protocol on its socket.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from typing import Any

from testcluster.cluster import Cluster
from testcluster.errors import ClusterError

_SOCKET = "etcd.sock:0"
_TIMEOUT_S = 10.0


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket in a folder whose path may be too long for an address."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._folder = cluster.layout.folder

    def connect(self) -> None:
        folder = os.open(self._folder, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(_TIMEOUT_S)
            self.sock.connect(f"/proc/self/fd/{folder}/{_SOCKET}")
        finally:
            os.close(folder)


def compact(cluster: Cluster) -> int:
    """Throw away all history up to now: a watch that goes on from before gets 410. Returns: etcd's revision."""
    revision = int(_call(cluster, "/v3/kv/range", {"key": "AA=="})["header"]["revision"])
    _call(cluster, "/v3/kv/compaction", {"revision": str(revision), "physical": True})
    return revision


def _call(cluster: Cluster, path: str, body: dict[str, Any]) -> dict[str, Any]:
    connection = _SocketConnection(cluster)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise ClusterError(f"etcd answered {response.status} to {path}: {text.decode(errors='replace')}")
    answer: dict[str, Any] = json.loads(text)
    return answer
