"""The node level: a kubelet, containerd, kube-proxy and CoreDNS beside the control plane, in namespaces of their own.

Layer: project tooling, Linux, root. What the parts write outside the cluster's folder (/run, /var/lib/kubelet, the
kernel's settings) goes to mounts that only they see; addresses exist only in their network namespace. All of it ends
with pid 1 of their pid namespace, the keeper.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from testcluster import cgroups, linux, node_files, parts, processes
from testcluster.api import KubeApi
from testcluster.errors import ClusterError, tail
from testcluster.kubeconfig import ADMIN, token_of
from testcluster.layout import Layout, binary
from testcluster.parts import Part, Stage
from testcluster.settings import LOOPBACK, NODE_ADDRESS, NODE_NAME, POD_NETWORK, Settings

_CONTAINERD_SOCKET = Path("/run/containerd.sock")
# kubelet insists on these values. It reads a file that only it sees and finds them set; the machine keeps its own.
_KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
# Their places cannot be chosen.
_PRIVATE_FOLDERS = ("/var/lib/kubelet", "/var/lib/cni", "/var/log/containers", "/var/log/pods")


def run_isolated(settings: Settings, layout: Layout, inside: Callable[[int, socket.socket], None]) -> None:
    """Run `inside` as pid 1 of new namespaces, with its pid as the machine counts, and clean up when it has ended.

    `inside` also gets a socket that listens on the machine's loopback, made before the network was left.
    """
    gateway = socket.create_server((LOOPBACK, settings.api_port), backlog=128)
    cgroups.make(layout.cgroup)
    linux.unshare(linux.CLONE_NEWPID)  # for the child; this process stays outside and cleans up
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        linux.die_with_parent()
        told = int(os.read(reading, 32))
        _exit_with(lambda: _begin(layout, settings), lambda: inside(told, gateway))
    os.write(writing, str(pid).encode())
    gateway.close()
    for number in (signal.SIGTERM, signal.SIGINT):  # for pid 1 too, which does not share our terminal
        signal.signal(number, lambda *_: os.kill(pid, signal.SIGKILL))
    os.waitpid(pid, 0)
    left = cgroups.remove(layout.cgroup)
    if left:
        raise ClusterError(f"these control groups are still busy: {', '.join(map(str, left))}")


def _exit_with(*steps: Callable[[], None]) -> None:
    """Run the steps and end this process, a child that must not return into its parent's code."""
    status = 1
    try:
        for step in steps:
            step()
        status = 0
    except BaseException:
        traceback.print_exc()  # nobody above will: this process ends here
        raise
    finally:
        sys.stderr.flush()
        os._exit(status)


def _begin(layout: Layout, settings: Settings) -> None:
    """Make this process's surroundings private: mounts, /proc, the network."""
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWNET)
    linux.make_mounts_private()
    linux.mount("proc", "/proc", "proc")
    private = layout.folder / "private"
    for name, value in _KERNEL_SETTINGS.items():
        stand_in = private / "sysctl" / name.replace("/", ".")
        stand_in.parent.mkdir(parents=True, exist_ok=True)
        stand_in.write_text(f"{value}\n", encoding="utf-8")
        if Path("/proc/sys", name).exists():
            linux.bind(stand_in, Path("/proc/sys", name))
    for name in _PRIVATE_FOLDERS:
        folder = private / name.strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        Path(name).mkdir(parents=True, exist_ok=True)
        linux.bind(folder, Path(name))
    linux.mount("tmpfs", "/run", "tmpfs", options="mode=755")
    for name in ("lock", "netns"):
        Path("/run", name).mkdir()
    store = layout.folder / "containerd"
    store.mkdir(exist_ok=True)
    if settings.image_store_mib:
        linux.mount("tmpfs", store, "tmpfs", options=f"size={settings.image_store_mib}m")


def _set_up_network(layout: Layout) -> None:
    """Give the node its address, and routes that end in it: nothing leads out of the namespace."""
    log = layout.log("network")
    commands = (
        "ip link set lo up",
        "ip link add pagemill0 type veth peer name pagemill1",
        f"ip address add {NODE_ADDRESS}/24 dev pagemill0",
        "ip link set pagemill0 up",
        "ip link set pagemill1 up",
        "ip route add default via 10.77.0.254",
    )
    for command in commands:
        _run(command.split(), log=log)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="utf-8")


def _run(command: list[str], *, log: Path) -> None:
    program = shutil.which(command[0])
    if program is None:
        raise ClusterError(f"{command[0]} is not installed")
    how = processes.run([program, *command[1:]], log=log, environment=os.environ)
    if how != "exit status 0":
        raise ClusterError(f"{' '.join(command)} ended with {how}\n{tail(log)}")


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise ClusterError(f"{program} is not installed")
    return path


def containerd(layout: Layout) -> Part:
    """containerd with runc, its images and layers in the cluster's folder."""
    network = layout.folder / "cni" / "10-pagemill.conflist"
    network.parent.mkdir(exist_ok=True)
    network.write_text(json.dumps(node_files.network_config()), encoding="utf-8")
    config = layout.folder / "containerd.toml"
    config.write_text(node_files.containerd_config(layout, _CONTAINERD_SOCKET), encoding="utf-8")

    def is_ready() -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(str(_CONTAINERD_SOCKET)) == 0

    return Part(name="containerd", command=[_found("containerd"), f"--config={config}"], is_ready=is_ready)


def gateway(settings: Settings, listening: socket.socket) -> Part:
    """The way from the machine's loopback to the API server."""
    command = [
        sys.executable,
        "-m",
        "testcluster.gateway",
        f"--fd={listening.fileno()}",
        f"--to={settings.api_address}",
    ]
    return Part(name="gateway", command=command, fd=listening.fileno())


def kubelet(layout: Layout) -> Part:
    """The kubelet of the one node."""
    config = layout.folder / "kubelet.json"
    text = node_files.kubelet_config(layout, _CONTAINERD_SOCKET)
    config.write_text(json.dumps(text), encoding="utf-8")
    command = [
        str(binary("kubelet")),
        f"--config={config}",
        f"--kubeconfig={layout.user_kubeconfig('kubelet')}",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={NODE_ADDRESS}",
        "--register-node=true",
        "--v=2",
    ]
    return Part(name="kubelet", command=command)


def kube_proxy(layout: Layout) -> Part:
    """kube-proxy by nftables; it leaves the machine's connection table as large as it is."""
    command = [
        str(binary("kube-proxy")),
        f"--kubeconfig={layout.user_kubeconfig('kube-proxy')}",
        f"--hostname-override={NODE_NAME}",
        "--proxy-mode=nftables",
        f"--cluster-cidr={POD_NETWORK}",
        "--conntrack-max-per-core=0",
        "--conntrack-min=0",
    ]
    return Part(name="kube-proxy", command=command)


def coredns(layout: Layout) -> Part:
    """CoreDNS as a process of the node, at the node's own address: no pod, no image."""
    config = layout.folder / "Corefile"
    config.write_text(node_files.corefile(layout), encoding="utf-8")
    return Part(name="coredns", command=[str(binary("coredns")), "-conf", str(config)])


def _import_pause_image(layout: Layout) -> None:
    archive = layout.folder / "pause.tar"
    archive.write_bytes(node_files.pause_image())
    command = ["ctr", "--address", str(_CONTAINERD_SOCKET), "--namespace", "k8s.io", "images", "import", str(archive)]
    _run(command, log=layout.log("pause-image"))


def stages(settings: Settings, layout: Layout, listening: socket.socket) -> list[Stage]:
    """The stages of a cluster with one node; run inside its namespaces."""
    authority = layout.pki / "ca.crt"
    token = token_of(ADMIN, settings.admin_token)
    api = KubeApi.for_server(f"https://{settings.api_address}", authority=authority, token=token)
    first, second = parts.control_plane(settings, layout, api)

    def is_node_ready() -> bool:
        answer = api.ask("GET", f"/api/v1/nodes/{NODE_NAME}")
        conditions = [] if answer.is_error else answer.body["status"].get("conditions", [])
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def before_kubelet() -> None:
        if second.before:
            second.before()
        _import_pause_image(layout)

    own = [kubelet(layout), kube_proxy(layout), coredns(layout)]
    has_account = second.until
    return [
        Stage(parts=[*first.parts, containerd(layout)], before=lambda: _set_up_network(layout)),
        Stage(
            parts=[gateway(settings, listening), *second.parts, *own],
            before=before_kubelet,
            until=lambda: is_node_ready() and (has_account is None or has_account()),
            last="kubelet",
        ),
    ]
