"""Jobs behind a queue: the operator leaves Kueue what is Kueue's, shows why it waits, and loses nothing to preemption.

Kueue is a stand-in that does the writes a real one was seen to do; on a cluster of one's own (KUBECONFIG) that has
Kueue, the same tests run against that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from testcluster.api import MERGE_PATCH, KubeApi, object_path
from testcluster.pytest_plugin import Kubernetes

from pagemill_core.api.v1alpha1 import API_VERSION, JobStatus
from pagemill_core.testing.seaweed import SeaweedServer
from pagemill_operator.cluster import WORKLOADS, Address
from pagemill_operator.objects import QUEUE_LABEL
from pagemill_operator.testing.fake_pods import Habits
from pagemill_operator.testing.played_stage import QUEUE_RULES, RULES, PlayedStage
from pagemill_operator.testing.queue_real import RealQueue, served_version
from pagemill_operator.testing.queue_standin import QueueSettings, QueueStandIn, install_workloads

pytestmark = [pytest.mark.cluster, pytest.mark.s3]

Json = Any

QUEUE = "team"
NODES = {"pagemill.dev/played": "yes"}
HIGH = "pagemill-test-high"
SETTINGS = QueueSettings(local_queues=(QUEUE, "other"), quota_cpu="2", node_selector=NODES, priorities={HIGH: 100})


class House:
    """A namespace with an operator, played pods and a queue in front of two cores; each pod takes one."""

    def __init__(self, stage: PlayedStage) -> None:
        self.stage = stage

    def submit(self, name: str, queue: str = QUEUE, parallelism: int = 2, **workers: Json) -> None:
        job = self.stage.job(output={"uri": f"s3://{self.stage.bucket}/{name}"})
        job["metadata"]["name"] = name
        job["spec"]["workers"] = {"parallelism": parallelism, "queue": queue, **workers}
        self.stage.api.call("POST", object_path(API_VERSION, "ocrjobs", self.stage.namespace), job)

    def edit(self, name: str, spec: Json) -> None:
        self.stage.api.call("PATCH", self._place(name), {"spec": spec}, content_type=MERGE_PATCH)

    def status(self, name: str) -> JobStatus:
        return JobStatus.model_validate(self.stage.api.call("GET", self._place(name)).get("status") or {})

    def until(self, name: str, holds: Callable[[JobStatus], bool], most_s: float = 90) -> JobStatus:
        deadline = time.monotonic() + most_s
        while not holds(found := self.status(name)):
            assert time.monotonic() < deadline, f"{name}: {found}; {self.stage.log()[-3:]}"
            time.sleep(0.1)
        return found

    def until_phase(self, name: str, phase: str, words: str = "", most_s: float = 90) -> JobStatus:
        return self.until(name, lambda found: found.phase == phase and words in (found.message or ""), most_s)

    def children(self, name: str) -> list[Json]:
        return [job for job in self.stage.jobs() if job["metadata"]["labels"]["pagemill.dev/job"] == name]

    def workloads(self) -> list[Json]:
        found: list[Json] = self.stage.api.call("GET", Address(WORKLOADS, self.stage.namespace).path)["items"]
        return found

    def _place(self, name: str) -> str:
        return object_path(API_VERSION, "ocrjobs", self.stage.namespace, name)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[SeaweedServer]:
    with SeaweedServer() as server:
        yield server


@pytest.fixture
def house(kubernetes: Kubernetes, namespace: str, s3_server: SeaweedServer, tmp_path: Path) -> Iterator[House]:
    api = kubernetes.api
    is_real = kubernetes.own is None and bool(served_version(api))
    if not is_real:
        install_workloads(api, lambda path: until_served(api, path))
    queue = (RealQueue if is_real else QueueStandIn)(api, namespace, SETTINGS)
    stage = PlayedStage(api, kubernetes.kubeconfig, namespace, s3_server, tmp_path)
    stage.write_kubeconfig(tmp_path / "kubeconfig", "operator", [*RULES, *QUEUE_RULES])
    stage.script.habits = Habits(items=160)
    queue.start()
    stage.pods.start()
    stage.start()
    yield House(stage)
    stage.kill()
    stage.pods.stop()
    queue.stop()
    assert stage.pods.errors == []
    assert queue.errors == []


def until_served(api: KubeApi, path: str) -> None:
    """A new kind is first unknown (404) and then not ready (429)."""
    deadline = time.monotonic() + 30
    while (found := api.ask("GET", path)).is_error:
        assert time.monotonic() < deadline, found.message
        time.sleep(0.1)


def changed_by_the_operator(job: Json) -> list[str]:
    """The fields that the operator has set by anything but the Job's making."""
    own = [one for one in job["metadata"]["managedFields"] if one["manager"] == "pagemill"]
    return [field for one in own if one["operation"] == "Update" for field in one["fieldsV1"].get("f:spec", {})]


def check_every_shard_once(house: House, jobs: int) -> None:
    counts = house.stage.script.commits
    assert len(counts) == jobs * house.stage.script.habits.shards
    assert set(counts.values()) == {1}


def test_every_child_waits_for_the_queue_and_keeps_what_the_queue_gave_it(house: House) -> None:
    house.submit("first")
    house.until_phase("first", "Running")
    house.submit("second")

    waiting = house.until_phase("second", "Queued", "WaitingForQuota")
    progressing = waiting.condition("Progressing")
    house.until_phase("first", "Succeeded")
    house.until_phase("second", "Succeeded")

    assert progressing is not None
    assert (progressing.status, progressing.reason) == ("False", "Queued")
    assert "queue team has not admitted second-" in (waiting.message or "")
    children = [*house.children("first"), *house.children("second")]
    assert len(children) == 6
    for child in children:
        assert child["metadata"]["labels"][QUEUE_LABEL] == QUEUE
        assert child["spec"]["template"]["spec"]["nodeSelector"] == NODES
        assert changed_by_the_operator(child) == []
    check_every_shard_once(house, 2)


def test_preempted_job_says_so_and_goes_on_when_there_is_room(house: House) -> None:
    house.submit("low")
    house.until("low", lambda status: status.shards is not None and status.shards.succeeded > 2)

    house.submit("high", priorityClass=HIGH)
    preempted = house.until_phase("low", "Suspended", "Preempted")
    house.until_phase("high", "Succeeded")
    low = house.until_phase("low", "Succeeded")

    suspended = preempted.condition("Suspended")
    assert suspended is not None
    assert (suspended.status, suspended.reason) == ("True", "SuspendedByQueue")
    assert "queue team has taken its place back" in suspended.message
    assert [child.wave for child in low.jobs if child.kind == "Work"] == [1]  # no wave was used up by it
    check_every_shard_once(house, 2)


def test_pause_holds_in_the_queue_and_gives_its_place_to_others(house: House) -> None:
    house.submit("paused")
    house.until("paused", lambda status: status.shards is not None and status.shards.succeeded > 1)
    house.edit("paused", {"suspend": True})
    house.until_phase("paused", "Suspended")
    house.submit("other", queue="other")
    house.until_phase("other", "Succeeded")

    held = house.status("paused")
    active = [one["spec"]["active"] for one in house.workloads() if one["metadata"]["name"].startswith("job-paused-")]
    house.edit("paused", {"suspend": False})
    house.until_phase("paused", "Succeeded")

    condition = held.condition("Suspended")
    assert condition is not None
    assert (held.phase, condition.reason) == ("Suspended", "SuspendedByUser")
    assert False in active
    assert all(changed_by_the_operator(child) == [] for child in house.children("paused"))
    check_every_shard_once(house, 2)


def test_queue_that_is_not_there_is_told_and_can_be_changed(house: House) -> None:
    house.submit("lost", queue="nobodys")
    told = house.until_phase("lost", "Queued", "Misconfigured")

    house.edit("lost", {"workers": {"queue": QUEUE}})
    house.until_phase("lost", "Succeeded")

    assert "nobodys" in (told.message or "")
    assert {child["metadata"]["labels"][QUEUE_LABEL] for child in house.children("lost")} == {QUEUE}


def test_job_that_never_fits_is_told_and_can_be_made_smaller(house: House) -> None:
    house.submit("wide", parallelism=8)
    told = house.until_phase("wide", "Queued", "ExceedsMaxQuota")

    house.edit("wide", {"workers": {"parallelism": 2}})
    house.until_phase("wide", "Succeeded")

    assert told.planned_at is not None
    check_every_shard_once(house, 1)


def test_job_that_leaves_its_queue_runs_without_one(house: House) -> None:
    house.submit("free", queue="nobodys")
    house.until_phase("free", "Queued")

    house.edit("free", {"workers": {"queue": None}})
    house.until_phase("free", "Succeeded")

    assert all(QUEUE_LABEL not in child["metadata"]["labels"] for child in house.children("free"))
    check_every_shard_once(house, 1)


def test_operator_without_rights_to_workloads_still_runs_queued_jobs(house: House, tmp_path: Path) -> None:
    house.stage.kill()
    house.stage.write_kubeconfig(tmp_path / "kubeconfig", "operator", RULES)
    house.stage.start()

    house.submit("blind")
    house.until_phase("blind", "Succeeded")

    check_every_shard_once(house, 1)
