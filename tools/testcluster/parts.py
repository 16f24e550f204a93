"""The parts of the control plane: which command each is, and when it counts as ready.

Layer: project tooling. Pure: from settings to commands; starts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from testcluster import kubeconfig
from testcluster.api import KubeApi
from testcluster.layout import Layout, binary
from testcluster.settings import LOOPBACK, NODE_ADDRESS, NOWHERE, SERVICE_NETWORK, Settings

# A relative path: etcd and the API server run in the cluster's folder, and a socket's full path may not be long.
_ETCD_URL = "unix://etcd.sock:0"
_ETCD_PEER_URL = "unix://etcd-peer.sock:0"
# The defaults (20 and 30) let a wave of 500 pods take 50 s; the wait would be measured, not the job controller.
_CLIENT_RATE = ("--kube-api-qps=1000", "--kube-api-burst=2000")
_KWOK_STAGES = Path(__file__).with_name("kwok-stages.yaml")
READY_PATIENCE_S = 90.0

Check = Callable[[], bool]
AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users:
  - system:apiserver
  - system:kube-controller-manager
  - system:kube-scheduler
  - system:kube-proxy
  - kwok
  - coredns
- level: None
  userGroups: ["system:nodes", "system:serviceaccounts:kube-system"]
- level: None
  nonResourceURLs: ["/*"]
- level: Metadata
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A process of the cluster. `is_ready` is asked again and again; a part without it is ready once it runs."""

    name: str
    command: Sequence[str]
    is_ready: Check | None = None
    environment: dict[str, str] = field(default_factory=dict)
    fd: int = -1
    """A descriptor of the keeper that the part inherits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Parts that start together, when all before are ready. `before` runs first, `until` must hold at the end.

    `last` is the part whose log tells why `until` does not hold.
    """

    parts: Sequence[Part]
    before: Callable[[], None] | None = None
    until: Check | None = None
    last: str = ""


def etcd(layout: Layout) -> Part:
    """etcd on a socket that only this user can open; nothing is synced to disk, since nothing is kept."""
    command = [
        str(binary("etcd")),
        f"--data-dir={layout.folder / 'etcd'}",
        "--unsafe-no-fsync",
        "--log-level=warn",
        f"--listen-client-urls={_ETCD_URL}",
        f"--advertise-client-urls={_ETCD_URL}",
        f"--listen-peer-urls={_ETCD_PEER_URL}",
        f"--initial-advertise-peer-urls={_ETCD_PEER_URL}",
        f"--initial-cluster=default={_ETCD_PEER_URL}",
    ]
    return Part(name="etcd", command=command)


def api_server(settings: Settings, layout: Layout, is_ready: Check) -> Part:
    """The API server with RBAC and node authorization, tokens from a file, aggregation, and an audit log."""
    pki, address = layout.pki, NODE_ADDRESS if settings.is_node else LOOPBACK
    flags = {
        "etcd-servers": _ETCD_URL,
        "bind-address": address,
        "secure-port": settings.api_address.rpartition(":")[2],
        "advertise-address": NODE_ADDRESS if settings.is_node else NOWHERE,
        "endpoint-reconciler-type": "lease" if settings.is_node else "none",
        "service-cluster-ip-range": SERVICE_NETWORK,
        "tls-cert-file": pki / "apiserver.crt",
        "tls-private-key-file": pki / "apiserver.key",
        "client-ca-file": pki / "ca.crt",
        "token-auth-file": layout.folder / "tokens.csv",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": pki / "service-accounts.pub",
        "service-account-signing-key-file": pki / "service-accounts.key",
        "kubelet-client-certificate": pki / "kubelet-client.crt",
        "kubelet-client-key": pki / "kubelet-client.key",
        "kubelet-preferred-address-types": "InternalIP",
        "requestheader-client-ca-file": pki / "front-proxy-ca.crt",
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
        "proxy-client-cert-file": pki / "front-proxy-client.crt",
        "proxy-client-key-file": pki / "front-proxy-client.key",
        "audit-policy-file": layout.folder / "audit-policy.yaml",
        "audit-log-path": layout.logs / "audit.jsonl",
        # Tell watches to end; without it a server that is told to stop waits a minute for its clients.
        "shutdown-watch-termination-grace-period": "1s",
    }
    if settings.feature_gates:
        flags["feature-gates"] = settings.feature_gates
    command = [str(binary("kube-apiserver")), *(f"--{name}={value}" for name, value in flags.items())]
    return Part(name="kube-apiserver", command=command, is_ready=is_ready)


def controller_manager(settings: Settings, layout: Layout) -> Part:
    """The controller manager, serving nothing, alone, at full speed."""
    command = [
        *_client("kube-controller-manager", settings, layout),
        f"--service-account-private-key-file={layout.pki / 'service-accounts.key'}",
        f"--root-ca-file={layout.pki / 'ca.crt'}",
        "--use-service-account-credentials=true",
        "--terminated-pod-gc-threshold=0",
    ]
    return Part(name="kube-controller-manager", command=command)


def scheduler(settings: Settings, layout: Layout) -> Part:
    """The scheduler, serving nothing, alone, at full speed."""
    return Part(name="kube-scheduler", command=_client("kube-scheduler", settings, layout))


def _client(name: str, settings: Settings, layout: Layout) -> list[str]:
    gates = [f"--feature-gates={settings.feature_gates}"] if settings.feature_gates else []
    config = f"--kubeconfig={layout.user_kubeconfig(name)}"
    return [str(binary(name)), config, "--leader-elect=false", "--secure-port=0", *_CLIENT_RATE, *gates]


def kwok(settings: Settings, layout: Layout) -> Part:
    """kwok, which plays kubelet for the nodes that carry its annotation, and for no other."""
    command = [
        str(binary("kwok")),
        f"--kubeconfig={layout.user_kubeconfig('kwok')}",
        "--manage-all-nodes=false",
        "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
        "--node-lease-duration-seconds=40",
        "--server-address=",
        "--v=WARN",
        f"--config={settings.kwok_config or _KWOK_STAGES}",
    ]
    return Part(name="kwok", command=command)


def kwok_node(number: int, *, is_beside_real: bool = False) -> dict[str, object]:
    """A pretended node of 64 cores, for which kwok answers. Beside a real node, a taint keeps real pods away."""
    taints = [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}] if is_beside_real else []
    room = {"cpu": "64", "memory": "512Gi", "pods": "10000", "ephemeral-storage": "1Ti"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": f"kwok-{number}",
            "annotations": {"kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": "0"},
            "labels": {"type": "kwok", "kubernetes.io/hostname": f"kwok-{number}", "kubernetes.io/os": "linux"},
        },
        "spec": {"taints": taints},
        "status": {"allocatable": room, "capacity": room},
    }


def is_serving(api: KubeApi) -> Check:
    """Whether the API server answers that it is ready."""
    return lambda: api.ask("GET", "/readyz").status == 200


def has_service_account(api: KubeApi) -> Check:
    """Whether the controller manager works: pods cannot be made before it gave `default` an account."""
    return lambda: api.ask("GET", "/api/v1/namespaces/default/serviceaccounts/default").status == 200


def write_files(settings: Settings, layout: Layout) -> None:
    """Write what the commands name: tokens, kubeconfigs, the audit policy."""
    tokens = layout.folder / "tokens.csv"
    tokens.touch(mode=0o600)
    tokens.write_text(kubeconfig.token_file(settings.admin_token), encoding="utf-8")
    (layout.folder / "audit-policy.yaml").write_text(AUDIT_POLICY, encoding="utf-8")
    authority = layout.pki / "ca.crt"
    for user in kubeconfig.USERS:
        token = kubeconfig.token_of(user, settings.admin_token)
        path, url = layout.user_kubeconfig(user.key), f"https://{settings.api_address}"
        kubeconfig.write(path, server=url, authority=authority, token=token)
    token = kubeconfig.token_of(kubeconfig.ADMIN, settings.admin_token)
    kubeconfig.write(layout.kubeconfig, server=settings.api_url, authority=authority, token=token)


def control_plane(settings: Settings, layout: Layout, api: KubeApi) -> list[Stage]:
    """The stages of a control plane, with kwok and its nodes when they are wanted."""
    second = [controller_manager(settings, layout), scheduler(settings, layout)]
    if settings.kwok_nodes:
        second.append(kwok(settings, layout))

    def add_nodes() -> None:
        for number in range(settings.kwok_nodes):
            api.call("POST", "/api/v1/nodes", kwok_node(number, is_beside_real=settings.is_node))

    return [
        Stage(parts=[etcd(layout), api_server(settings, layout, is_serving(api))]),
        Stage(parts=second, before=add_nodes, until=has_service_account(api), last="kube-controller-manager"),
    ]
