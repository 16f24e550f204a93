"""What an API server does to an operator that nobody expects: kinds that go, rights that go, news that never come.

Each test has a control plane of its own, because it breaks it. Pods are played.
"""

from __future__ import annotations

import contextlib
import secrets
import signal
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from testcluster.api import KubeApi, object_path
from testcluster.cluster import Cluster
from testcluster.lease import leased
from testcluster.pytest_plugin import install_crds
from testcluster.settings import Settings

from pagemill_core.testing.seaweed import SeaweedServer
from pagemill_operator.testing.fake_pods import Habits
from pagemill_operator.testing.played_stage import RULES, PlayedStage

pytestmark = [pytest.mark.cluster, pytest.mark.s3]

CRDS = "apiextensions.k8s.io/v1"


@pytest.fixture(scope="module")
def s3_server() -> Iterator[SeaweedServer]:
    with SeaweedServer() as server:
        yield server


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with leased(Settings(name=f"surprise-{secrets.token_hex(4)}")) as found:
        yield found


@pytest.fixture
def stage(cluster: Cluster, s3_server: SeaweedServer, tmp_path: Path) -> Iterator[PlayedStage]:
    api = cluster.api()
    install_crds(api)
    name = f"surprise-{secrets.token_hex(4)}"
    api.call("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    found = PlayedStage(api, cluster.kubeconfig, name, s3_server, tmp_path)
    yield found
    found.kill()


@contextlib.contextmanager
def playing(stage: PlayedStage) -> Iterator[None]:
    """Play the pods meanwhile; not while the API server is away."""
    stage.pods.start()
    try:
        yield
    finally:
        stage.pods.stop()
    assert stage.pods.errors == []


def until(holds: Callable[[], bool], most_s: float) -> None:
    deadline = time.monotonic() + most_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {most_s:g} s"
        time.sleep(0.2)


def is_serving(stage: PlayedStage) -> bool:
    try:
        return stage.get("/readyz") == "ok\n"
    except (StopIteration, urllib.error.URLError, OSError):
        return False


def remove_crds(api: KubeApi) -> None:
    for plural in ("ocrjobs", "embeddingjobs"):
        place = object_path(CRDS, "customresourcedefinitions", name=f"{plural}.pagemill.dev")
        api.call("DELETE", place)
        until(lambda place=place: api.read_or_none(place) is None, 30)  # type: ignore[misc]


def test_operator_on_a_cluster_without_its_kinds_ends_and_says_so(stage: PlayedStage, cluster: Cluster) -> None:
    remove_crds(cluster.api())

    stage.start()

    assert stage.wait(30) == 76
    told = stage.log()[-1]
    assert "does not know pagemill.dev/v1alpha1/ocrjobs" in told["problem"]
    assert "crds/" in told["advice"]


def test_operator_whose_kinds_are_deleted_ends_and_serves_again_once_they_are_back(
    stage: PlayedStage, cluster: Cluster
) -> None:
    stage.start()
    until(lambda: is_serving(stage), 30)

    remove_crds(cluster.api())

    assert stage.wait(60) != 0
    install_crds(cluster.api())
    stage.start()
    with playing(stage):
        stage.apply()
        stage.until_phase("Succeeded", 120)


def test_object_deleted_while_the_watch_was_cut_is_forgotten(stage: PlayedStage, cluster: Cluster) -> None:
    """After a restart of the API server nobody tells of the deletion; only a complete list shows it."""
    stage.start()
    stage.apply(suspend=True)
    stage.until_phase("Suspended", 60)
    assert 'phase="Suspended"} 1' in stage.get("/metrics")
    stage.send(signal.SIGSTOP)
    stage.delete()
    cluster.stop_part("kube-apiserver", kill=True)
    cluster.start_part("kube-apiserver")
    until(lambda: cluster.status().is_ready, 60)

    stage.send(signal.SIGCONT)

    until(lambda: 'phase="Suspended"} 1' not in stage.get("/metrics"), 60)
    assert is_serving(stage)


def test_operator_that_loses_its_rights_is_not_ready_and_goes_on_when_it_has_them_again(stage: PlayedStage) -> None:
    stage.start()
    until(lambda: is_serving(stage), 30)
    kubeconfig = stage.folder / "unused"

    stage.write_kubeconfig(kubeconfig, "operator", [])
    until(lambda: not is_serving(stage), 60)
    stage.write_kubeconfig(kubeconfig, "operator", RULES)
    until(lambda: is_serving(stage), 60)

    with playing(stage):
        stage.apply()
        stage.until_phase("Succeeded", 120)
    told = [line for line in stage.log() if line["level"] == "WARNING"]
    assert any("403" in str(line) or "orbidden" in str(line) for line in told), told


def test_operator_lives_through_a_minute_without_an_api_server(stage: PlayedStage, cluster: Cluster) -> None:
    stage.script.habits = Habits(items=40)
    stage.start()
    until(lambda: is_serving(stage), 30)
    cluster.stop_part("kube-apiserver", kill=True)
    time.sleep(60)
    cluster.start_part("kube-apiserver")
    until(lambda: cluster.status().is_ready, 60)

    with playing(stage):
        stage.apply()
        stage.until_phase("Succeeded", 120)

    assert sum(line["message"] == "Started" for line in stage.log()) == 1, "the process was started once"
