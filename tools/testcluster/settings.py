"""What is asked of a cluster, and what its keeper says of it: the two files through which processes agree.

Layer: project tooling. Plain data with its JSON form.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, Self

Level = Literal["control-plane", "node"]
Phase = Literal["starting", "ready", "failed", "stopped"]
PartState = Literal["starting", "running", "dead", "stopped"]

LOOPBACK = "127.0.0.1"
# Inside the cluster's own network namespace; nothing outside it can see them.
NODE_ADDRESS = "10.77.0.1"
SERVICE_NETWORK = "10.78.0.0/16"
SERVICE_ADDRESS = "10.78.0.1"
POD_NETWORK = "10.79.0.0/16"
NODE_NAME = "node-0"
# Written into the control plane's own object where no node is: an address for documentation, which nobody dials.
NOWHERE = "192.0.2.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One cluster as it was asked for. `api_port` is on loopback of this machine."""

    name: str
    level: Level = "control-plane"
    kwok_nodes: int = 0
    kwok_config: str = ""
    """A file of kwok Stages in place of kwok's own, which finish every pod at once."""
    image_store_mib: int = 0
    """Above 0, images and writable layers live in memory, up to this size."""
    is_leased: bool = False
    """The cluster ends by itself when nobody holds its lease."""
    api_port: int = 0
    admin_token: str = ""
    feature_gates: str = ""

    @property
    def is_node(self) -> bool:
        return self.level == "node"

    @property
    def api_address(self) -> str:
        """Where the API server itself listens."""
        return f"{NODE_ADDRESS}:6443" if self.is_node else f"{LOOPBACK}:{self.api_port}"

    @property
    def api_url(self) -> str:
        """Where this machine reaches the API server."""
        return f"https://{LOOPBACK}:{self.api_port}"

    def write(self, path: Path) -> None:
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls(**json.loads(path.read_text(encoding="utf-8")))


@dataclass(slots=True, kw_only=True)
class State:
    """What the keeper knows. `pid` is the keeper's, as the machine counts."""

    phase: Phase = "starting"
    pid: int = 0
    problem: str = ""
    """The first part that failed and how, with the end of its log; empty while all is well."""
    parts: dict[str, PartState] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)
    """Of each part, as the keeper counts: at the node level they are pids inside the namespace."""
    ready_after_s: float = 0.0

    def write(self, path: Path) -> None:
        """Replace the file; a reader sees the old or the new, whole."""
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self)), encoding="utf-8")
        os.replace(fresh, path)

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls(**json.loads(path.read_text(encoding="utf-8")))
