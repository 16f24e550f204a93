"""The API server restarted and etcd's history compacted under the watch, on a node cluster of this module's own."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator

import pytest
from testcluster import etcd, faults
from testcluster import stage as stages
from testcluster.api import object_path
from testcluster.cluster import Cluster
from testcluster.lease import leased
from testcluster.pytest_plugin import install_crds
from testcluster.settings import Settings
from testcluster.stage import API_VERSION, Stage

from pagemill_cli.testing.promises import broken_promises, marker_tokens, newest_entry
from pagemill_core.testing import ocr_pages

pytestmark = [pytest.mark.cluster, pytest.mark.node, pytest.mark.s3, pytest.mark.timeout(900)]

AWAY_S = 20.0
CONVERGED_S = 30.0


@pytest.fixture(scope="module")
def own_cluster(built_images: None) -> Iterator[Cluster]:
    """Nobody else's: its parts may be stopped."""
    with leased(Settings(name=f"own-{secrets.token_hex(4)}", level="node")) as cluster:
        install_crds(cluster.api())
        stages.load_images(cluster)
        yield cluster


@pytest.fixture
def own_stage(own_cluster: Cluster) -> Iterator[Stage]:
    with stages.s3_for_pods(own_cluster) as s3:
        name = f"pagemill-test-{secrets.token_hex(4)}"
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        own_cluster.api().call("POST", "/api/v1/namespaces", namespace)
        with contextlib.closing(Stage(own_cluster, name, s3)) as stage:
            stage.install()
            yield stage


def test_api_server_restarted_with_its_history_gone_is_caught_up_with(own_stage: Stage, own_cluster: Cluster) -> None:
    ids = [f"page_{number:03}" for number in range(400)]
    note = ocr_pages.note(4).as_bytes()
    own_stage.put_pages({f"{name}.png": note for name in ids})
    job = own_stage.job(engine={"name": "tesseract", "languages": ["en"]}, sharding={"itemsPerShard": 2})
    job["spec"]["workers"]["parallelism"] = 2
    other = own_stage.job("short-lived", output={"uri": f"s3://{own_stage.bucket}/out/other"}, suspend=True)
    own_stage.apply(other)
    own_stage.apply(job)
    own_stage.wait(lambda: len(marker_tokens(own_stage.store("out/comics"))) >= 4, "4 shards done", most_s=90)

    with faults.status_log(own_stage) as log:
        own_cluster.stop_part("kube-apiserver", kill=True)
        etcd.compact(own_cluster)
        time.sleep(AWAY_S)
        own_cluster.start_part("kube-apiserver")
        own_stage.wait(lambda: serves(own_stage), "the API server to know our kinds again")
        # What is said at once after the start may meet a watch that has not come back yet.
        own_stage.delete("short-lived")
        own_stage.kubectl("scale", "ocrjob/comics", "--replicas=3")
        generation = (own_stage.read() or {})["metadata"]["generation"]
        converged_s = own_stage.until(lambda status: status.observed_generation == generation, most_s=90)
        own_stage.until_phase("Succeeded", most_s=400)

    assert converged_s <= CONVERGED_S
    assert log.losses == []
    assert broken_promises(own_stage.store("out/comics"), ids) == []
    assert newest_entry(own_stage.store("out/comics")).seq == 1


def serves(stage: Stage) -> bool:
    return stage.api.ask("GET", object_path(API_VERSION, "ocrjobs", stage.namespace)).status == 200
