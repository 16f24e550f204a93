"""Where the test cluster's files are: binaries by the digest of what they are built from, clusters by name.

Layer: project tooling. Paths and names only; makes nothing. All of it is below `~/.cache/pagemill/cluster` (or
XDG_CACHE_HOME), which may be deleted whenever no cluster stands.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from testcluster.errors import ClusterError

GO_MODULE = Path(__file__).resolve().parent / "go"
# A name becomes part of a cgroup, a socket's path and a node's name.
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


def cache_root() -> Path:
    """The folder that holds everything the tool writes."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pagemill" / "cluster"


@cache
def module_digest() -> str:
    """What the programs are built from: go.mod, go.sum and our own Go files. 16 hex digits."""
    digest = hashlib.sha256()
    for path in sorted(path for path in GO_MODULE.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(GO_MODULE)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def build_folder() -> Path:
    """The folder of the programs that belong to this go.mod."""
    return cache_root() / module_digest()


def binary(name: str) -> Path:
    """The path of a built program."""
    return build_folder() / "bin" / name


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one cluster, by its name. Raises: ClusterError when the name cannot be one."""

    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ClusterError(f"{self.name!r} cannot be a cluster's name: use a-z, 0-9 and -, at most 32")

    @property
    def folder(self) -> Path:
        """Everything of this cluster; gone after `down`."""
        return cache_root() / "run" / self.name

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def pki(self) -> Path:
        return self.folder / "pki"

    @property
    def settings(self) -> Path:
        """What was asked for, see `Settings`."""
        return self.folder / "settings.json"

    @property
    def state(self) -> Path:
        """What the keeper last said, see `State`."""
        return self.folder / "state.json"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; works from this machine and holds its certificates in itself."""
        return self.folder / "kubeconfig"

    @property
    def control_socket(self) -> Path:
        return self.folder / "control.sock"

    @property
    def keeper_lock(self) -> Path:
        """Locked for as long as the keeper lives."""
        return self.folder / "keeper.lock"

    @property
    def change_lock(self) -> Path:
        """Locked while someone starts or stops this cluster; outside the folder, so that it outlives it."""
        return cache_root() / "run" / f".{self.name}.change"

    @property
    def lease(self) -> Path:
        """Locked, shared, by everyone who uses a leased cluster; outside the folder, so that it outlives it."""
        return cache_root() / "run" / f".{self.name}.lease"

    @property
    def cgroup(self) -> str:
        """The name of the cluster's own group below the root of each hierarchy."""
        return f"pagemill-{self.name}"

    def log(self, part: str) -> Path:
        return self.logs / f"{part}.log"

    def user_kubeconfig(self, user: str) -> Path:
        """The kubeconfig of a part of the cluster."""
        return self.folder / f"{user}.kubeconfig"
