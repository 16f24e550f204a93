"""The operator's own process against a real API server and a real Job controller; pods are played by this test.

It runs as a service account with exactly the rights it documents, against a real S3 server, and is killed at will.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from testcluster.pytest_plugin import Kubernetes

from pagemill_core.errors import SourceError
from pagemill_core.testing.seaweed import SeaweedServer
from pagemill_operator.cluster import JOBS, Address
from pagemill_operator.testing.fake_pods import Habits
from pagemill_operator.testing.played_stage import PlayedStage

pytestmark = [pytest.mark.cluster, pytest.mark.s3]


@pytest.fixture(scope="module")
def s3_server() -> Iterator[SeaweedServer]:
    with SeaweedServer() as server:
        yield server


@pytest.fixture
def stage(kubernetes: Kubernetes, namespace: str, s3_server: SeaweedServer, tmp_path: Path) -> Iterator[PlayedStage]:
    found = PlayedStage(kubernetes.api, kubernetes.kubeconfig, namespace, s3_server, tmp_path)
    found.pods.start()
    yield found
    found.kill()
    found.pods.stop()
    assert found.pods.errors == []


def check_every_shard_once(stage: PlayedStage) -> None:
    counts = stage.script.commits
    assert {shard for _, shard in counts} == set(range(stage.script.habits.shards))
    assert set(counts.values()) == {1}


def test_job_applied_completes_with_the_documented_rights(stage: PlayedStage) -> None:
    stage.script.habits = Habits(items=80, bad_shards={3: 1})
    stage.start()
    stage.apply()

    stage.until_phase("Succeeded", 120)

    check_every_shard_once(stage)
    status = stage.status()
    assert status.done == "80/80"
    assert [condition.type for condition in status.conditions][:2] == ["Accepted", "Planned"]
    assert sorted(job["metadata"]["name"][-2:] for job in stage.jobs()) == ["-f", "-p", "w1", "w2"]
    assert 'pagemill_operator_jobs{kind="OcrJob",phase="Succeeded"} 1' in stage.get("/metrics")
    assert stage.get("/readyz") == "ok\n"
    assert stage.terminate() == 0
    errors = [line for line in stage.log() if line["level"] in ("WARNING", "ERROR")]
    assert errors == []


def test_finished_job_is_not_touched_by_a_new_operator(stage: PlayedStage) -> None:
    stage.start()
    stage.apply()
    stage.until_phase("Succeeded", 120)
    place = stage.address()
    before = stage.api.call("GET", place)["metadata"]["resourceVersion"]
    stage.kill()

    stage.start()
    time.sleep(8)

    assert stage.api.call("GET", place)["metadata"]["resourceVersion"] == before


def test_operator_killed_suspended_scaled_and_applied_again_converges(stage: PlayedStage) -> None:
    stage.script.habits = Habits(items=600, bad_shards={5: 1})
    rng = random.Random(5)
    stage.start()
    stage.apply(workers={"parallelism": 3})
    stage.until_phase("Running", 60)

    def strike() -> None:
        time.sleep(rng.uniform(0.2, 4.0))
        stage.kill()
        stage.start()

    strike()
    stage.patch({"suspend": True})
    strike()
    stage.until_phase("Suspended", 30)
    stage.patch({"suspend": False})
    strike()
    stage.patch({"replicas": 6}, "scale")
    work = next(job["metadata"]["name"] for job in stage.jobs() if "-w" in job["metadata"]["name"])
    stage.api.call("DELETE", Address(JOBS, stage.namespace, work).path, propagationPolicy="Background")
    strike()
    stage.delete()
    stage.apply(workers={"parallelism": 3})
    strike()
    took_s = stage.until(lambda status: status.planned_at is not None, 30)

    stage.until_phase("Succeeded", 200)
    check_every_shard_once(stage)
    assert stage.script.plans == 1
    assert took_s < 30


def test_plan_error_is_told_and_an_edit_tries_again(stage: PlayedStage) -> None:
    stage.script.habits.plan_error = SourceError("manifest.csv, line 7: 3 fields, 4 expected", advice="mend the line")
    stage.start()
    stage.apply()

    stage.until_phase("Failed", 60)

    status = stage.status()
    failed = status.condition("Failed")
    assert failed is not None
    assert (failed.reason, status.message) == ("Source", "manifest.csv, line 7: 3 fields, 4 expected; mend the line")
    stage.script.habits.plan_error = None
    stage.patch({"maxItems": 30})
    stage.until_phase("Succeeded", 120)


def test_spec_that_is_no_pod_is_told(stage: PlayedStage) -> None:
    stage.start()
    stage.apply(workers={"resources": {"requests": {"cpu": "4"}, "limits": {"cpu": "1"}}})

    stage.until_phase("Failed", 60)

    failed = stage.status().condition("Failed")
    assert failed is not None
    assert failed.reason == "InvalidSpec"
    assert "must be less than or equal to cpu limit" in failed.message
