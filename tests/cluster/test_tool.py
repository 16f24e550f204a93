"""The test cluster itself: it starts, names what fails, stands beside another one, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from testcluster import binaries, etcd
from testcluster.cluster import TOOLS, Cluster, processes_of
from testcluster.errors import ClusterError, NotRunningError, PartFailedError
from testcluster.images import bases, full_name
from testcluster.layout import GO_MODULE, Layout
from testcluster.lease import leased
from testcluster.settings import Settings

pytestmark = pytest.mark.cluster

PATIENCE_S = 20.0
LEASE_HOLDER = """
import sys
from testcluster.lease import leased
from testcluster.settings import Settings

with leased(Settings(name=sys.argv[1])):
    sys.stdout.write("held\\n")
    sys.stdout.flush()
    sys.stdin.read()
"""


def fresh_name() -> str:
    return f"tool-{secrets.token_hex(4)}"


@contextmanager
def standing(settings: Settings) -> Iterator[Cluster]:
    cluster = Cluster(settings.name)
    try:
        cluster.up(settings)
        yield cluster
    finally:
        cluster.down()


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def config_map(name: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A control plane of this file's own, whose parts may be stopped and must run again afterwards."""
    with standing(Settings(name=fresh_name(), kwok_nodes=1)) as started:
        yield started


def test_cluster_after_down_leaves_no_process_port_or_file() -> None:
    name = fresh_name()
    with standing(Settings(name=name)) as cluster:
        settings = cluster.status().settings
        during = len(processes_of(cluster))
        cluster.down()

        assert during >= 4
        assert processes_of(cluster) == []
        assert not cluster.layout.folder.exists()
        assert cluster.status().phase is None
        assert settings is not None
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", settings.api_port)) != 0


def test_cluster_pods_on_a_pretended_node_complete_their_job(cluster: Cluster) -> None:
    container = {"name": "work", "image": "none"}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "three"},
        "spec": {
            "completions": 3,
            "parallelism": 3,
            "completionMode": "Indexed",
            "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
        },
    }
    path = "/apis/batch/v1/namespaces/default/jobs"
    cluster.api().call("POST", path, job)

    done = cluster.api().wait_for(f"{path}/three", lambda job: job["status"].get("succeeded") == 3, timeout_s=60.0)

    assert done["status"]["completedIndexes"] == "0-2"


def test_cluster_beside_another_shares_nothing(cluster: Cluster) -> None:
    with standing(Settings(name=fresh_name())) as other:
        cluster.api().call("POST", "/api/v1/namespaces/default/configmaps", config_map("mine"))

        assert other.api().read_or_none("/api/v1/namespaces/default/configmaps/mine") is None
        refused = other.api().with_token("not-a-token").ask("GET", "/api/v1/namespaces")
        assert refused.status == 401
    cluster.require_ready()


def test_cluster_part_that_cannot_start_is_named_with_its_log() -> None:
    name = fresh_name()

    with (
        pytest.raises(PartFailedError, match=r"(?s)kube-apiserver died with exit status 1.*NoSuchGate"),
        standing(Settings(name=name, feature_gates="NoSuchGate=true")),
    ):
        pass

    assert Cluster(name).status().phase is None


def test_cluster_part_that_dies_is_named_at_once(cluster: Cluster) -> None:
    pid = cluster.status().state.pids["kube-scheduler"]

    os.kill(pid, signal.SIGKILL)

    assert eventually(lambda: cluster.status().phase == "failed")
    with pytest.raises(PartFailedError, match="kube-scheduler died with signal 9"):
        cluster.require_ready()
    cluster.start_part("kube-scheduler")
    cluster.require_ready()


def test_cluster_api_server_restarted_still_holds_the_objects(cluster: Cluster) -> None:
    api, path = cluster.api(), "/api/v1/namespaces/default/configmaps"
    api.call("POST", path, config_map("kept"))

    cluster.stop_part("kube-apiserver")
    with pytest.raises(OSError, match="refused"):
        cluster.api().ask("GET", "/readyz")
    cluster.start_part("kube-apiserver")

    assert api.read_or_none(f"{path}/kept") is not None
    cluster.require_ready()


def test_cluster_etcd_compacted_makes_old_watches_begin_anew(cluster: Cluster) -> None:
    api, path = cluster.api(), "/api/v1/namespaces/default/configmaps"
    old = api.call("POST", path, config_map("before"))["metadata"]["resourceVersion"]
    api.call("POST", path, config_map("after"))

    revision = etcd.compact(cluster)
    cluster.stop_part("kube-apiserver", kill=True)  # its cache of changes would still serve the watch
    cluster.start_part("kube-apiserver")

    assert revision > int(old)
    with api.watching(path, resourceVersion=old) as changes:
        first = next(changes)
    assert (first["type"], first["object"]["code"]) == ("ERROR", 410)


def test_cluster_unknown_part_is_refused_with_the_names_there_are(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match="no part is called 'apiserver'; there are etcd, kube-apiserver"):
        cluster.stop_part("apiserver")


def test_cluster_user_without_rights_is_refused(cluster: Cluster) -> None:
    stranger = cluster.api().as_user("stranger", "system:authenticated", "readers")

    answer = stranger.ask("GET", "/api/v1/namespaces/default/secrets")

    assert answer.status == 403
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    who = stranger.call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
    assert who["status"]["userInfo"]["groups"] == ["system:authenticated", "readers"]


def test_cluster_keeper_killed_takes_every_part_along() -> None:
    with standing(Settings(name=fresh_name())) as cluster:
        os.kill(cluster.status().state.pid, signal.SIGKILL)

        assert eventually(lambda: processes_of(cluster) == [])
        with pytest.raises(NotRunningError, match="the keeper was killed"):
            cluster.require_ready()


def test_cluster_lease_shared_by_two_ends_with_the_last() -> None:
    settings = Settings(name=fresh_name())
    with leased(settings) as first:
        with leased(settings) as second:
            assert second.status().state.pid == first.status().state.pid
        first.require_ready()
    assert first.status().phase is None
    assert not first.layout.lease.exists()


def test_cluster_lease_holder_killed_ends_the_cluster() -> None:
    name = fresh_name()
    command = [sys.executable, "-c", LEASE_HOLDER, name]
    environment = {**os.environ, "PYTHONPATH": str(TOOLS)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()

    assert eventually(lambda: Cluster(name).status().phase is None)
    assert processes_of(Cluster(name)) == []
    Cluster(name).down_if_unused()


def test_go_module_holds_the_parts_of_kubernetes_at_its_own_release() -> None:
    text = (GO_MODULE / "go.mod").read_text(encoding="utf-8")
    want = binaries.kubernetes_version().replace("v1.", "v0.")

    replaced = dict(re.findall(r"(?m)^\t(k8s\.io/[a-z-]+) => k8s\.io/[a-z-]+ (v0\.\d+\.\d+)$", text))

    assert {name: version for name, version in replaced.items() if version != want} == {}
    assert {"k8s.io/api", "k8s.io/apiserver", "k8s.io/client-go", "k8s.io/kubectl"} <= set(replaced)


@pytest.mark.parametrize("name", ["", "Upper", "-x", "a" * 33, "a/b"])
def test_layout_impossible_name_is_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="cannot be a cluster's name"):
        Layout(name)


@pytest.mark.parametrize(
    ("tag", "want"),
    [
        ("pagemill/worker", "localhost/pagemill/worker:latest"),
        ("worker:t1", "localhost/worker:t1"),
        ("ghcr.io/pagemill/worker:1", "ghcr.io/pagemill/worker:1"),
        ("10.77.0.1:5000/worker:1", "10.77.0.1:5000/worker:1"),
    ],
)
def test_image_name_gets_the_parts_that_a_node_needs(tag: str, want: str) -> None:
    assert full_name(tag) == want


def test_image_bases_are_found_behind_arguments_and_stages() -> None:
    lines = ["ARG PY=3.11", "FROM python:${PY}-slim-bookworm AS build", "FROM build AS more"]
    text = "\n".join([*lines, "from --platform=linux/amd64 scratch", ""])

    assert bases(text, {}) == ["python:3.11-slim-bookworm"]
    assert bases(text, {"PY": "3.12"}) == ["python:3.12-slim-bookworm"]


def test_folder_of_the_tool_is_where_the_tests_think() -> None:
    assert (TOOLS / "testcluster" / "go" / "go.mod").is_file()
    assert Path(__file__).parents[2] / "tools" == TOOLS
