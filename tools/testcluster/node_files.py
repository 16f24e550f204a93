"""The configuration files of the node level, as text, and the one image that every pod needs.

Layer: project tooling. Pure but for reading the pause program.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path
from typing import Any

from testcluster.layout import Layout, binary
from testcluster.settings import NODE_ADDRESS, POD_NETWORK

PAUSE_IMAGE = "registry.k8s.io/pause:3.10"
REGISTRY = f"{NODE_ADDRESS}:5000"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def containerd_config(layout: Layout, socket_path: Path) -> str:
    """containerd's own file; it finds `network_config` in the folder `cni`."""
    store, network = layout.folder / "containerd", layout.folder / "cni"
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""\
version = 2
root = "{store}/root"
state = "/run/containerd"
[grpc]
  address = "{socket_path}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{store}/opt"
[{cri}]
  sandbox_image = "{PAUSE_IMAGE}"
  # Neither may be set in every machine that runs tests, and no test is about them.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [{cri}.containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [{cri}.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [{cri}.containerd.runtimes.runc.options]
        SystemdCgroup = false
  [{cri}.cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{network}"
  [{cri}.registry.mirrors."{REGISTRY}"]
    endpoint = ["http://{REGISTRY}"]
"""


def network_config() -> dict[str, Any]:
    """Pods on one bridge. No masquerading: there is no outside to reach."""
    bridge = {
        "type": "bridge",
        "bridge": "pagemill-pods",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": POD_NETWORK}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "pagemill", "plugins": [bridge, ports]}


def kubelet_config(layout: Layout, socket_path: Path) -> dict[str, Any]:
    """The kubelet asks the API server who may do what with it, as on a real node."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{socket_path}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "enforceNodeAllocatable": [],
        # A disk that is nearly full with other things must not evict the test's pods.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "clusterDomain": "cluster.local",
        "clusterDNS": [NODE_ADDRESS],
        "resolvConf": "",
        # Tests kill what runs time and again; kubelet's own five minutes of waiting are not what they are about.
        "crashLoopBackOff": {"maxContainerRestartPeriod": "1s"},
        "maxPods": 250,
        "serializeImagePulls": False,
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "2s",
    }


def corefile(layout: Layout) -> str:
    """Names of Services and pods; nothing is forwarded, since nothing is outside."""
    return f""".:53 {{
    bind {NODE_ADDRESS}
    errors
    ready {NODE_ADDRESS}:8181
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {layout.user_kubeconfig("coredns")} pagemill-test
    }}
}}
"""


def pause_image() -> bytes:
    """The image of the container that holds a pod's namespaces, as an archive that `ctr` imports."""
    config = {"Entrypoint": ["/pause"], "User": "65535:65535"}
    return image_archive(PAUSE_IMAGE, {"pause": binary("pause").read_bytes()}, config)


def image_archive(name: str, programs: dict[str, bytes], config: dict[str, Any]) -> bytes:
    """An image of one layer that holds nothing but these programs, by path; `config` as in a Dockerfile's terms."""
    layer = _archive({path: (data, 0o755) for path, data in programs.items()})
    machine = platform.machine()
    manifest = {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    text = json.dumps(manifest).encode()
    path = f"{hashlib.sha256(text).hexdigest()}.json"
    listing = json.dumps([{"Config": path, "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    return _archive({path: (text, 0o644), "layer.tar": (layer, 0o644), "manifest.json": (listing, 0o644)})


def _archive(files: dict[str, tuple[bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, (data, mode) in files.items():  # owned by root, of no time: the same bytes each time
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), mode
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
