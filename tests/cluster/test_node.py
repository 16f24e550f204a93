"""The node level of the test cluster: its pods are real, and nothing of it stays behind."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import os
import secrets
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from testcluster import cgroups, images
from testcluster.api import KubeApi
from testcluster.cluster import Cluster, processes_of
from testcluster.errors import BuildError
from testcluster.node_files import PAUSE_IMAGE
from testcluster.pytest_plugin import BUSYBOX_IMAGE
from testcluster.settings import NODE_NAME, Settings

pytestmark = [pytest.mark.cluster, pytest.mark.node]

PODS = "/api/v1/namespaces/default/pods"
KERNEL_SETTINGS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops")
HARDENED = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def make_pod(script: str, *, image: str = BUSYBOX_IMAGE, **container: Any) -> dict[str, Any]:
    name = f"pod-{secrets.token_hex(4)}"
    main = {"name": "main", "image": image, "imagePullPolicy": "Never", "args": [script], **container}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [main]},
    }


def run_pod(api: KubeApi, pod: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Run a pod to its end. Returns: how its container ended, and what it printed."""
    name = pod["metadata"]["name"]
    api.call("POST", PODS, pod)
    ended = api.wait_for(f"{PODS}/{name}", has_ended, timeout_s=60.0)
    log = api.ask("GET", f"{PODS}/{name}/log")
    assert log.status == 200, log.message
    state: dict[str, Any] = ended["status"]["containerStatuses"][0]["state"]["terminated"]
    return state, str(log.body).strip()


def http_get(host: str, port: object) -> str:
    """The script that prints a server's answer; busybox's wget wants files that an image of one program lacks."""
    return f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 5 {host} {port}"


def has_ended(pod: Any) -> bool:
    return pod is not None and pod["status"]["phase"] in ("Succeeded", "Failed")


def is_running(pod: Any) -> bool:
    return pod is not None and pod["status"]["phase"] == "Running"


@contextmanager
def web_server(text: bytes) -> Iterator[int]:
    """A server on this machine's loopback. Yields: its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield server.server_address[1]
        server.shutdown()
        serving.join()


def machine_state() -> dict[str, Any]:
    """What a cluster could change on the machine: mounts, network interfaces, control groups, the kernel's settings."""
    return {
        "mounts": sorted(line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()),
        "interfaces": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "settings": {name: Path("/proc/sys", name).read_text() for name in KERNEL_SETTINGS},
    }


def namespaces(pids: Iterable[int]) -> set[str]:
    """The namespaces that these processes are in, such as net:[4026532253]."""
    found = set()
    for pid, kind in itertools.product(pids, ("net", "mnt", "pid")):
        with contextlib.suppress(OSError):  # it ended meanwhile
            found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
    return found


def all_pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def test_node_pod_runs_hardened_and_its_log_is_read(node_cluster: Cluster) -> None:
    script = "busybox id -u; busybox id -g; busybox grep -E 'Seccomp:|NoNewPrivs' /proc/self/status; busybox touch /x"

    state, log = run_pod(node_cluster.api(), make_pod(script, securityContext=HARDENED))

    assert log.splitlines()[:4] == ["65532", "65532", "NoNewPrivs:\t1", "Seccomp:\t2"]
    assert "Read-only file system" in log
    assert state["exitCode"] == 1


def test_node_pod_above_its_memory_limit_is_killed(node_cluster: Cluster) -> None:
    limits = {"limits": {"memory": "32Mi"}}

    state, _ = run_pod(
        node_cluster.api(), make_pod("exec busybox dd if=/dev/zero of=/dev/null bs=256M", resources=limits)
    )

    assert (state["reason"], state["exitCode"]) == ("OOMKilled", 137)


def test_node_service_is_found_by_name_and_answers(node_cluster: Cluster) -> None:
    api = node_cluster.api()
    server = make_pod(
        "echo hello >/tmp/index.html; exec busybox httpd -f -p 8080 -h /tmp",
        volumeMounts=[{"name": "tmp", "mountPath": "/tmp"}],
    )
    server["spec"]["volumes"] = [{"name": "tmp", "emptyDir": {}}]
    name = server["metadata"]["name"]
    api.call("POST", PODS, server)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    address = api.call("POST", "/api/v1/namespaces/default/services", service)["spec"]["clusterIP"]
    api.wait_for(f"{PODS}/{name}", is_running)

    script = f"busybox nslookup {name}.default.svc.cluster.local; {http_get(address, 80)}"
    state, log = run_pod(api, make_pod(f"for i in 1 2 3 4 5; do {script} && exit 0; busybox sleep 1; done; exit 1"))

    assert state["exitCode"] == 0, log
    assert f"Address: {address}" in log
    assert log.endswith("hello")
    api.call("DELETE", f"{PODS}/{name}")


def test_node_pod_reaches_a_server_of_the_test_and_nothing_else(node_cluster: Cluster) -> None:
    with web_server(b"from the test") as port, node_cluster.reachable_from_pods(port) as address:
        host, _, far_port = address.partition(":")
        script = f"{http_get(host, far_port)}; echo; {http_get('192.0.2.1', 80)} || echo unreachable"
        _, log = run_pod(node_cluster.api(), make_pod(script))

    assert "\nfrom the test\n" in log
    assert log.endswith("unreachable")


def test_node_service_account_token_is_accepted_by_the_api_server(node_cluster: Cluster) -> None:
    path = "/var/run/secrets/kubernetes.io/serviceaccount/token"

    _, token = run_pod(node_cluster.api(), make_pod(f"busybox cat {path}"))

    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    who = node_cluster.api().with_token(token).call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
    assert who["status"]["userInfo"]["username"] == "system:serviceaccount:default:default"


def test_node_runs_an_image_built_from_a_dockerfile(node_cluster: Cluster, tmp_path: Path) -> None:
    lines = ["ARG BASE=scratch", "FROM ${BASE}", "ARG WORD=none", "ENV WORD=${WORD}", "COPY busybox /bin/busybox"]
    lines += ["USER 65532:65532", 'ENTRYPOINT ["/bin/busybox", "sh", "-c"]', ""]
    (tmp_path / "Dockerfile").write_text("\n".join(lines))
    shutil.copy("/bin/busybox", tmp_path)
    tag = f"pagemill-test/built:{secrets.token_hex(4)}"
    image = images.build_image(tmp_path / "Dockerfile", tag, build_args={"WORD": "argued"})
    images.load_image(node_cluster, tag)

    hardened = make_pod("echo $WORD; busybox id -u", image=image, securityContext={"runAsNonRoot": True})
    state, log = run_pod(node_cluster.api(), hardened)
    images.remove_image(tag)

    assert (state["exitCode"], log.split()) == (0, ["argued", "65532"])


def test_node_image_that_cannot_be_built_shows_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY absent /absent\n")

    with pytest.raises(BuildError, match=r"(?s)localhost/pagemill-test/bad:1 could not be built.*absent"):
        images.build_image(tmp_path / "Dockerfile", "pagemill-test/bad:1")


def test_node_cluster_after_down_leaves_the_machine_as_it_was() -> None:
    before = machine_state()
    cluster = Cluster(f"node-{secrets.token_hex(4)}")
    cluster.up(Settings(name=cluster.name, level="node"))
    try:
        pod = make_pod("", image=PAUSE_IMAGE, args=[])
        cluster.api().call("POST", PODS, pod)
        cluster.api().wait_for(f"{PODS}/{pod['metadata']['name']}", is_running, timeout_s=60.0)
        own = namespaces([cluster.status().state.pid]) - namespaces([os.getpid()])
        groups = cgroups.remaining(cluster.layout.cgroup)
    finally:
        cluster.down()

    assert len(own) == 3
    assert groups
    assert machine_state() == before
    assert namespaces(all_pids()) & own == set()
    assert cgroups.remaining(cluster.layout.cgroup) == []
    assert processes_of(cluster) == []
    assert not cluster.layout.folder.exists()


def test_node_two_clusters_run_pods_side_by_side(node_cluster: Cluster) -> None:
    other = Cluster(f"node-{secrets.token_hex(4)}")
    other.up(Settings(name=other.name, level="node"))
    try:
        pod = make_pod("", image=PAUSE_IMAGE, args=[])
        other.api().call("POST", PODS, pod)
        other.api().wait_for(f"{PODS}/{pod['metadata']['name']}", is_running, timeout_s=60.0)
        state, log = run_pod(node_cluster.api(), make_pod("echo here"))
    finally:
        other.down()

    assert (state["exitCode"], log) == (0, "here")
    state, log = run_pod(node_cluster.api(), make_pod("echo still here"))
    assert (state["exitCode"], log) == (0, "still here")
    node_cluster.require_ready()


def test_node_offers_a_pretended_gpu_after_a_patch_of_its_status(node_cluster: Cluster) -> None:
    api, path = node_cluster.api(), f"/api/v1/nodes/{NODE_NAME}/status"
    api.call(
        "PATCH",
        path,
        {"status": {"capacity": {"nvidia.com/gpu": "1"}, "allocatable": {"nvidia.com/gpu": "1"}}},
        content_type="application/merge-patch+json",
    )

    state, log = run_pod(api, make_pod("echo on the gpu", resources={"limits": {"nvidia.com/gpu": "1"}}))

    assert (state["exitCode"], log) == (0, "on the gpu")
