"""What a level needs of the machine, and the one command that brings it.

Layer: project tooling. As root on Debian, packages that are missing are installed; elsewhere they are named.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from system_packages import Need, command, install

from testcluster.errors import MissingError
from testcluster.settings import Level


def _file(path: str) -> bool:
    return Path(path).exists()


NODE_NEEDS = (
    Need("containerd", "runs the containers", command("containerd")),
    Need("runc", "starts a container", command("runc")),
    Need("containernetworking-plugins", "gives pods their network", lambda: _file("/usr/lib/cni/bridge")),
    Need("nftables", "what kube-proxy writes Services with", command("nft")),
    Need("iptables", "what the port mapping of pods is written with", command("iptables")),
    Need("conntrack", "what kube-proxy forgets connections with", command("conntrack")),
    Need("iproute2", "sets the network up", command("ip")),
)
TEST_NEEDS = (Need("busybox-static", "what the pods of the node's tests run", lambda: _file("/bin/busybox")),)
IMAGE_NEEDS = (
    Need("buildah", "builds images from Dockerfiles", command("buildah")),
    Need("debootstrap", "makes the base image where no registry can be reached", command("debootstrap")),
)


def ensure(level: Level) -> None:
    """See that a level can run here. Raises: MissingError that names what is missing and how to get it."""
    if sys.platform != "linux":
        raise MissingError("The test cluster runs on Linux. Elsewhere, make one with kind and set KUBECONFIG.")
    if level == "node":
        ensure_root()
        ensure_packages(NODE_NEEDS)


def ensure_root() -> None:
    """Raises: MissingError without root."""
    if os.geteuid() != 0:
        raise MissingError(
            "The level `node` needs root: namespaces, mounts and control groups. Try --level control-plane."
        )


def ensure_packages(needs: tuple[Need, ...]) -> None:
    """Install what is missing, or say what is. Raises: MissingError."""
    missing = [need for need in needs if not need.is_there()]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        packages = [need.package for need in missing]
        sys.stderr.write(f"Installing {' '.join(packages)} ...\n")
        install(packages)
        missing = [need for need in missing if not need.is_there()]
    if missing:
        lines = [f"  {need.package:28} {need.reason}" for need in missing]
        hint = f"sudo apt-get install --no-install-recommends {' '.join(need.package for need in missing)}"
        raise MissingError("\n".join(["These packages are missing (Debian's names):", *lines, hint]))
