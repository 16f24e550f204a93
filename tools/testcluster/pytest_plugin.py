"""Fixtures for tests that need a Kubernetes: one cluster per test run, shared by all processes of pytest-xdist.

Layer: project tooling; tests/conftest.py loads it. With KUBECONFIG set, tests run on that cluster instead, in
namespaces of their own; this module reads the variable when it is imported, before the suite removes such settings.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from testcluster import binaries, images, node_files, requirements
from testcluster import stage as stages
from testcluster.api import Json, KubeApi, object_path
from testcluster.cluster import Cluster
from testcluster.external import kubectl_proxy
from testcluster.lease import leased
from testcluster.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
BUSYBOX_IMAGE = "localhost/pagemill-test/busybox:1"
EXTERNAL_KUBECONFIG = os.environ.get("KUBECONFIG", "")
# One value for all processes of one run; without xdist the run is this process.
_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", secrets.token_hex(8))[:8]
_HAS_NODE = sys.platform == "linux" and os.geteuid() == 0 and not EXTERNAL_KUBECONFIG


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubernetes:
    """A cluster as tests see it. `own` is None for one that the user gave by KUBECONFIG."""

    api: KubeApi
    kubeconfig: Path
    own: Cluster | None


def pytest_sessionstart(session: pytest.Session) -> None:
    is_controller = not hasattr(session.config, "workerinput")
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if is_controller and reporter is not None and not _HAS_NODE:
        why = "KUBECONFIG is set" if EXTERNAL_KUBECONFIG else "Not root on Linux"
        reporter.write_line(f"{why}: tests marked node are deselected.")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    on_node = [] if _HAS_NODE else [item for item in items if item.get_closest_marker("node")]
    if on_node:
        config.hook.pytest_deselected(items=on_node)
        items[:] = [item for item in items if item not in on_node]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what the chosen tests need now: from cold it takes minutes, which no test's timeout allows for."""
    if session.config.option.collectonly:
        return
    markers = {marker.name for item in session.items for marker in item.iter_markers()}
    if markers & {"cluster", "node"}:
        binaries.ensure(program.name for program in binaries.CONTROL_PLANE)
    if "node" in markers:
        requirements.ensure("node")
        requirements.ensure_packages((*requirements.TEST_NEEDS, *requirements.IMAGE_NEEDS))
        binaries.ensure(program.name for program in binaries.NODE)
    if any("built_images" in getattr(item, "fixturenames", ()) for item in session.items):
        binaries.ensure(["helm"])
        stages.build_images()


@pytest.fixture(scope="session")
def kubernetes() -> Iterator[Kubernetes]:
    """A control plane of any kind, with the project's kinds installed. Other tests use it too: stop nothing of it."""
    with _external() if EXTERNAL_KUBECONFIG else _own(Settings(name=f"test-{_RUN}")) as found:
        install_crds(found.api)
        yield found


@pytest.fixture(scope="session")
def kube_api(kubernetes: Kubernetes) -> KubeApi:
    """The administrator's API."""
    return kubernetes.api


@pytest.fixture(scope="session")
def node_cluster() -> Iterator[Cluster]:
    """A cluster with a real node, the project's kinds and BUSYBOX_IMAGE. Shared; for tests marked `node`."""
    with _own(Settings(name=f"node-{_RUN}", level="node")) as found:
        assert found.own is not None
        install_crds(found.api)
        _load_busybox(found.own)
        yield found.own


@pytest.fixture
def namespace(kube_api: KubeApi) -> Iterator[str]:
    """A namespace that nobody else uses; what is left in it goes away after the test."""
    with _namespace(kube_api) as name:
        yield name


@contextlib.contextmanager
def _namespace(api: KubeApi) -> Iterator[str]:
    name = f"pagemill-test-{secrets.token_hex(4)}"
    api.call("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    api.call("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="session")
def pod_s3(node_cluster: Cluster) -> Iterator[stages.PodS3]:
    """An S3 server that pods of `node_cluster` reach. Other tests use it too, each with buckets of its own."""
    with stages.s3_for_pods(node_cluster) as server:
        yield server


@pytest.fixture(scope="session")
def built_images() -> None:
    """The project's images, which were built while the tests were collected."""


@pytest.fixture
def empty_stage(built_images: None, node_cluster: Cluster, pod_s3: stages.PodS3) -> Iterator[stages.Stage]:
    """A namespace on the node with the project's images at hand and a bucket; nothing is installed yet."""
    stages.load_images(node_cluster)
    with _namespace(node_cluster.api()) as name, contextlib.closing(stages.Stage(node_cluster, name, pod_s3)) as found:
        yield found


@pytest.fixture
def stage(empty_stage: stages.Stage) -> stages.Stage:
    """A namespace on the node with the operator, installed from the chart, that serves it alone."""
    empty_stage.install()
    return empty_stage


@contextlib.contextmanager
def _external() -> Iterator[Kubernetes]:
    with kubectl_proxy(EXTERNAL_KUBECONFIG) as url, KubeApi(url) as api:
        yield Kubernetes(api=api, kubeconfig=Path(EXTERNAL_KUBECONFIG), own=None)


@contextlib.contextmanager
def _own(settings: Settings) -> Iterator[Kubernetes]:
    with leased(settings) as cluster:
        yield Kubernetes(api=cluster.api(), kubeconfig=cluster.kubeconfig, own=cluster)
        cluster.require_ready()  # a part that died meanwhile is named, even if no test noticed


def _load_busybox(cluster: Cluster) -> None:
    """Give the node an image with a shell, made from one static program. Idempotent."""
    archive = cluster.layout.folder / f"busybox-{os.getpid()}.tar"
    shell = Path("/bin/busybox").read_bytes()
    config = {"Entrypoint": ["/bin/busybox", "sh", "-c"], "Env": ["PATH=/bin"]}
    archive.write_bytes(node_files.image_archive(BUSYBOX_IMAGE, {"bin/busybox": shell, "bin/sh": shell}, config))
    images.load_archive(cluster, archive)
    archive.unlink()


def install_crds(api: KubeApi) -> None:
    """Apply the files of crds/ and wait until the server serves both kinds. Idempotent."""
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        crd: Json = yaml.safe_load(path.read_text(encoding="utf-8"))
        place = object_path("apiextensions.k8s.io/v1", "customresourcedefinitions", name=crd["metadata"]["name"])
        api.apply(place, crd)
        api.wait_for(place, _is_established)


def _is_established(crd: Json | None) -> bool:
    conditions = (crd or {}).get("status", {}).get("conditions") or []
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)
