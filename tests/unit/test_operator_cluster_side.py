"""The operator's border to the cluster: what it reads, what it writes and when, and what it does with refusals."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from pagemill_core.api.v1alpha1 import JobStatus
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.work.pod import LastWords
from pagemill_operator.cluster import JOBS, PODS, SECRETS, WORKLOADS, Address, ApiError
from pagemill_operator.objects import Key, read_custom
from pagemill_operator.queue import Urgency
from pagemill_operator.settings import parse_config
from pagemill_operator.status import ANSWER_S, DRIFT_EVERY_S, PROGRESS_EVERY_S, SHED_EVERY_S, StatusWriter
from pagemill_operator.store_view import StoreSight
from pagemill_operator.testing.fake_jobs import Exit
from pagemill_operator.testing.fake_kube import FakeKube
from pagemill_operator.testing.fake_pods import FakePods, Habits
from pagemill_operator.testing.world import World, WorldParts, run_now

KEY = Key("OcrJob", "default", "comics")
CONFIG: dict[str, Any] = {"images": {"default": "worker:1"}, "outputs": {"*": ["s3://library"]}}


def make_job(**spec: Any) -> dict[str, Any]:
    given = {"source": {"manifest": {"uri": "s3://library/m.csv"}}, "output": {"uri": "s3://library/out"}, **spec}
    return {"apiVersion": "pagemill.dev/v1alpha1", "kind": "OcrJob", "metadata": {"name": "comics"}, "spec": given}


def make_world(habits: Habits | None = None, **config: Any) -> World:
    clock, memory = FakeClock(), MemoryStore("out")
    pods = FakePods(lambda _: memory, clock, habits or Habits())
    world = World(
        WorldParts(clock=clock, config=parse_config({**CONFIG, **config}), pods=pods, open_store=lambda _: memory)
    )
    world.boot()
    return world


# -- addresses and errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "want"),
    [
        (Address(PODS, "books", "p"), "/api/v1/namespaces/books/pods/p"),
        (Address(JOBS, "books"), "/apis/batch/v1/namespaces/books/jobs"),
        (Address("pagemill.dev/v1alpha1/ocrjobs"), "/apis/pagemill.dev/v1alpha1/ocrjobs"),
        (
            Address("pagemill.dev/v1alpha1/ocrjobs", "b", "x", "status"),
            "/apis/pagemill.dev/v1alpha1/namespaces/b/ocrjobs/x/status",
        ),
    ],
    ids=["core", "group", "whole-cluster", "status"],
)
def test_address_is_the_api_servers_path(address: Address, want: str) -> None:
    assert address.path == want


@pytest.mark.parametrize(
    ("status", "message", "want"),
    [
        (422, "", True),
        (400, "", True),
        (500, "failed to create typed patch object (default/x): .spec.a: field not declared in schema", True),
        (500, "etcdserver: request timed out", False),
        (409, "", False),
        (403, "", False),
        (429, "", False),
        (0, "no answer", False),
    ],
)
def test_error_that_can_never_succeed_is_known(status: int, message: str, want: bool) -> None:
    assert ApiError(status, "", message).is_terminal is want


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "want_phase", "want_reason"),
    [
        (ApiError(422, "Invalid", "cpu: must be less than or equal to cpu limit"), "Failed", "InvalidSpec"),
        (ApiError(500, "", "failed to create typed patch object: field not declared"), "Failed", "InvalidSpec"),
        (ApiError(403, "Forbidden", "exceeded quota: team"), None, "WaitingForPods"),
    ],
    ids=["invalid", "unknown-field", "quota"],
)
def test_job_that_the_server_refuses_is_told_and_tried_ever_less_often(
    error: ApiError, want_phase: str | None, want_reason: str
) -> None:
    world = make_world()
    tries: list[float] = []

    def refuse(verb: str, address: Address) -> None:
        if (verb, address.resource) == ("apply", JOBS):
            tries.append(world.clock.monotonic_s())
            raise error

    world.kube.before = refuse
    world.kube.user_apply(make_job())
    for _ in range(200):
        world.tick(1.0)

    status = world.status("comics")
    assert error.message in (status.message or "")
    assert want_reason in {condition.reason for condition in status.conditions}
    assert want_phase is None or status.phase == want_phase
    assert 5 <= len(tries) <= 12
    world.kube.before = None
    world.run_until(lambda: world.status("comics").phase == "Succeeded")


def test_api_server_that_is_away_for_a_while_is_waited_for() -> None:
    world = make_world()
    world.kube.user_apply(make_job())

    def dead(verb: str, _: Address) -> None:
        if verb != "list":
            raise ApiError(0, "NoAnswer", "connection refused")

    world.run_until(lambda: world.status("comics").phase == "Running")
    world.kube.before = dead
    for _ in range(60):
        world.tick(1.0)
    world.kube.before = None

    world.run_until(lambda: world.status("comics").phase == "Succeeded")


def test_status_never_lands_on_another_object_of_the_name() -> None:
    clock = FakeClock()
    kube = FakeKube(clock)
    old = read_custom(kube.user_apply(make_job()))
    kube.remove(Address("pagemill.dev/v1alpha1/ocrjobs", "default", "comics"))
    kube.user_apply(make_job())

    with pytest.raises(ApiError, match="409"):
        run_now(StatusWriter(kube, clock).write(old, JobStatus(phase="Running")))


def test_progress_waits_and_gives_way_when_the_queue_grows() -> None:
    clock = FakeClock()
    kube = FakeKube(clock)
    writer, idle = StatusWriter(kube, clock), StoreSight()
    custom = read_custom(kube.user_apply(make_job()))
    custom = read_custom(run_now(writer.write(custom, JobStatus(phase="Running", done="1/9"))))

    assert writer.delay_s(custom, custom.status, 0.0, idle) is None
    assert writer.delay_s(custom, JobStatus(phase="Running", done="2/9"), 0.0, idle) == PROGRESS_EVERY_S
    assert writer.delay_s(custom, JobStatus(phase="Running", done="2/9"), 30.0, idle) == SHED_EVERY_S
    assert writer.delay_s(custom, JobStatus(phase="Suspended", done="1/9"), 30.0, idle) == 0.0
    assert writer.delay_s(custom, JobStatus(phase="Running", done="1/9", eta="45s"), 0.0, idle) == DRIFT_EVERY_S
    clock.advance(PROGRESS_EVERY_S)
    assert writer.delay_s(custom, JobStatus(phase="Running", done="2/9"), 0.0, idle) == 0.0


def test_status_waits_a_moment_for_the_stores_answer() -> None:
    clock = FakeClock()
    kube = FakeKube(clock)
    writer, asking = StatusWriter(kube, clock), StoreSight(is_busy=True, asked_s=clock.monotonic_s())
    custom = read_custom(kube.user_apply(make_job()))

    assert writer.delay_s(custom, JobStatus(done="2/9"), 0.0, asking) is None
    assert writer.delay_s(custom, JobStatus(phase="Running"), 0.0, asking) == ANSWER_S
    clock.advance(ANSWER_S)
    assert writer.delay_s(custom, JobStatus(phase="Running"), 0.0, asking) == 0.0


# -- the watch and the resync -----------------------------------------------------------------------------------------


def test_deletion_that_the_watch_missed_is_found_by_the_resync() -> None:
    world = make_world(Habits(items=4000))
    world.kube.user_apply(make_job())
    world.run_until(lambda: world.status("comics").phase == "Running")
    child = next(address for address in world.kube.objects if address.name.endswith("-w1"))
    world.kube.remove(child)
    world.kube.events.clear()

    world.resync()
    world.tick()

    assert child in world.kube.objects


def test_old_news_after_our_own_write_changes_nothing() -> None:
    world = make_world()
    world.kube.user_apply(make_job())
    old = world.kube.events[0][2]
    world.run_until(lambda: world.status("comics").phase == "Planning")
    cache = world.operator.cache

    key, urgency, replaced = cache.put_custom(old)

    assert (key, urgency, replaced) == (KEY, None, None)
    custom = cache.custom(KEY)
    assert custom is not None
    assert custom.status.phase == "Planning"


def test_edits_are_urgent_and_statuses_are_not() -> None:
    world = make_world()
    cache = world.operator.cache
    body = world.kube.user_apply(make_job())

    assert cache.put_custom(body)[1] is Urgency.USER
    world.kube.set_status(Address("pagemill.dev/v1alpha1/ocrjobs", "default", "comics"), {"phase": "Pending"})
    assert cache.put_custom(world.kube.events[-1][2])[1] is None
    world.kube.user_patch("OcrJob", "comics", {"suspend": True})
    assert cache.put_custom(world.kube.events[-1][2])[1] is Urgency.USER


def test_job_of_somebody_else_is_none_of_ours() -> None:
    world = make_world()
    body = {"metadata": {"name": "x", "namespace": "default", "labels": {"app.kubernetes.io/managed-by": "pagemill"}}}

    assert world.operator.cache.put_child(body, 0.0) is None


# -- pods, secrets, workloads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_work", [True, False], ids=["work", "plan"])
def test_pods_that_do_not_start_are_asked_why(is_work: bool) -> None:
    world = make_world()
    world.kube.user_apply(make_job())
    suffix = "-w1" if is_work else "-p"
    if not is_work:
        world.jobs.schedules = False
    world.run_until(lambda: any(job["metadata"]["name"].endswith(suffix) for job in world.child_jobs()))
    world.jobs.schedules = False
    work = next(job for job in world.child_jobs() if job["metadata"]["name"].endswith(suffix))
    address = Address(PODS, "default", "stuck")
    labels = {"batch.kubernetes.io/controller-uid": work["metadata"]["uid"]}
    world.kube.put(address, {"metadata": {"name": "stuck", "labels": labels}})
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no GPU"}
    world.kube.set_status(address, {"conditions": [scheduled]})

    world.run_until(lambda: "no GPU" in (world.status("comics").message or ""), most_s=150)

    assert world.condition("comics", "Progressing") == ("True", "WaitingForPods" if is_work else "Planning")
    assert world.kube.calls["list", PODS] <= 3


@pytest.mark.parametrize(
    ("words", "want_reason", "want_text"),
    [
        (LastWords(reason="Source", message="line 7").to_bytes().decode(), "Source", "line 7"),
        ("Traceback\nValueError: no such column", "PlanFailed", "exit code 65: ValueError: no such column"),
        ("", "PlanFailed", "failed with exit code 65"),
    ],
    ids=["our-words", "a-traceback", "nothing"],
)
def test_last_words_of_a_plan_pod_reach_the_status(words: str, want_reason: str, want_text: str) -> None:
    world = make_world()

    class Mute:
        def step(self, pod: str, task: Any, job_json: str) -> Any:
            del pod, task, job_json
            return Exit(65, words)

    world.jobs.script = Mute()
    world.kube.user_apply(make_job())

    world.run_until(lambda: world.condition("comics", "Planned") == ("False", want_reason))

    assert want_text in (world.status("comics").message or "")


def test_jobs_secret_is_read_only_where_it_may_be() -> None:
    job = make_job(storage={"secretRef": {"name": "pagemill-s3"}})
    closed, open_ = make_world(), make_world(readSecretsIn=["default"])
    for world in (closed, open_):
        world.kube.user_apply(job)
        for _ in range(5):
            world.tick()

    assert closed.kube.calls["get", SECRETS] == 0
    assert closed.status("comics").phase != "Pending"
    assert open_.condition("comics", "Accepted") == ("False", "SecretMissing")
    secret = Address(SECRETS, "default", "pagemill-s3")
    value = base64.b64encode(b"me").decode()
    open_.kube.put(secret, {"metadata": {"name": "pagemill-s3"}, "data": {"accessKey": value}})
    open_.clock.advance(61)
    open_.resync()
    open_.operator.controller.enqueue(KEY, Urgency.USER)
    open_.run_until(lambda: open_.status("comics").phase == "Succeeded")


def test_queued_job_is_paused_through_its_workload() -> None:
    world = make_world(Habits(items=4000))
    world.kube.user_apply(make_job(workers={"parallelism": 2, "queue": "team"}))
    world.run_until(lambda: world.status("comics").phase == "Queued")
    plan = world.child_jobs()[0]
    workload = Address(WORKLOADS, "default", "job-plan")
    labels = {"kueue.x-k8s.io/job-uid": plan["metadata"]["uid"]}
    world.kube.put(workload, {"metadata": {"name": "job-plan", "labels": labels}, "spec": {"active": True}})
    job = Address(JOBS, "default", plan["metadata"]["name"])
    world.kube.objects[job]["spec"]["suspend"] = False  # the queue admits
    world.jobs.schedules = False
    world.resync()
    world.kube.user_patch("OcrJob", "comics", {"suspend": True})

    world.run_until(lambda: world.kube.objects[workload]["spec"]["active"] is False)

    assert world.kube.calls["patch", JOBS] == 0
    world.kube.user_patch("OcrJob", "comics", {"suspend": False})
    world.run_until(lambda: world.kube.objects[workload]["spec"]["active"] is True)
