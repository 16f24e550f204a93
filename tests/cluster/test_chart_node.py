"""The chart on a real node: operators side by side, one for all, an upgrade in the middle of work, recurring runs."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from testcluster.api import Json, object_path
from testcluster.stage import JOB_SECRET, RELEASE, Stage

from pagemill_core.testing import ocr_pages

pytestmark = [pytest.mark.cluster, pytest.mark.node, pytest.mark.s3, pytest.mark.timeout(600)]

TESSERACT: Json = {"name": "tesseract", "languages": ["en"]}


def notes(first: int, last: int) -> dict[str, bytes]:
    return {f"note_{number:03}.png": ocr_pages.note(number).as_bytes() for number in range(first, last)}


@pytest.fixture
def beside(empty_stage: Stage) -> Iterator[Stage]:
    """A second namespace with a bucket of its own."""
    name = f"pagemill-test-{secrets.token_hex(4)}"
    api = empty_stage.api
    api.call("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield Stage(empty_stage.cluster, name, empty_stage.s3)
    api.call("DELETE", f"/api/v1/namespaces/{name}")


def touched(stage: Stage, account: str) -> set[tuple[str, str]]:
    """(namespace, verb) of all that an account of a stage's namespace did, from the audit log; or "refused"."""
    user = f"system:serviceaccount:{stage.namespace}:{account}"
    found = set()
    with (stage.cluster.layout.logs / "audit.jsonl").open(encoding="utf-8") as log:
        for line in log:
            if user not in line:
                continue
            event = json.loads(line)
            if event["user"]["username"] == user:
                verb = event["verb"] if event["responseStatus"]["code"] != 403 else "refused"
                found.add(((event.get("objectRef") or {}).get("namespace", ""), verb))
    return found


def test_two_operators_do_not_touch_each_others_objects(empty_stage: Stage, beside: Stage) -> None:
    for stage in (empty_stage, beside):
        stage.install()
        stage.put_pages(notes(0, 2))
        stage.apply(stage.job(engine=TESSERACT))
    for stage in (empty_stage, beside):
        stage.until_phase("Succeeded", "Failed", most_s=240)

    assert [stage.status().done for stage in (empty_stage, beside)] == ["2/2", "2/2"]
    for stage in (empty_stage, beside):
        found = touched(stage, RELEASE)
        assert {namespace for namespace, _ in found} == {stage.namespace}
        assert "refused" not in {verb for _, verb in found}


def test_one_operator_serves_all_namespaces(empty_stage: Stage, beside: Stage) -> None:
    values = empty_stage.values()
    values["scope"] = {"clusterWide": True}
    values["config"]["outputs"] = {"*": [f"s3://{empty_stage.bucket}/", f"s3://{beside.bucket}/"]}
    beside.secret(JOB_SECRET, beside.s3.credentials("worker"))
    try:
        empty_stage.install(values)
        for stage in (empty_stage, beside):
            stage.put_pages(notes(0, 2))
            stage.apply(stage.job(engine=TESSERACT))
        for stage in (empty_stage, beside):
            stage.until_phase("Succeeded", "Failed", most_s=240)
        assert [stage.status().done for stage in (empty_stage, beside)] == ["2/2", "2/2"]
        assert beside.pods("app.kubernetes.io/component=operator") == []
    finally:  # what is not of a namespace does not go away with one
        empty_stage.helm("uninstall", RELEASE, "--namespace", empty_stage.namespace)


def test_upgrade_and_removal_in_the_middle_of_work_lose_nothing(stage: Stage) -> None:
    stage.put_pages(notes(0, 40))
    stage.apply(stage.job(engine=TESSERACT, sharding={"itemsPerShard": 2}))
    stage.until_phase("Running", most_s=120)
    (before,) = stage.pods("app.kubernetes.io/component=operator")
    values = stage.values()
    values["config"]["pools"].append({"name": "large", "cpu": "2", "memory": "4Gi"})

    stage.install(values)
    (after,) = stage.pods("app.kubernetes.io/component=operator")
    stage.helm("uninstall", RELEASE, "--namespace", stage.namespace, "--wait")
    left = stage.kubectl("get", "deployments,configmaps,serviceaccounts,roles,rolebindings", "--output=name").split()
    job, children = stage.read(), stage.jobs()
    stage.install(values)
    stage.until_phase("Succeeded", "Failed", most_s=300)

    assert before["metadata"]["uid"] != after["metadata"]["uid"]
    assert left == ["configmap/kube-root-ca.crt", "serviceaccount/default"]
    assert job is not None
    assert children != []
    assert stage.status().done == "40/40"


def series(stage: Stage, **changes: Any) -> Json:
    """Values with a series that is due every minute."""
    values = stage.values()
    spec = stage.job(engine=TESSERACT)["spec"]
    one = {"name": "comics", "schedule": "* * * * *", "job": {"kind": "OcrJob", "spec": spec}, **changes}
    values["recurring"] = {"enabled": True, "jobs": [one]}
    return values


def members(stage: Stage) -> list[Json]:
    """The series' jobs, oldest first."""
    place = object_path("pagemill.dev/v1alpha1", "ocrjobs", stage.namespace)
    found = stage.api.call("GET", place, labelSelector="pagemill.dev/series=comics")["items"]
    return sorted(found, key=lambda job: str(job["metadata"]["name"]))


def succeeded(stage: Stage) -> list[Json]:
    return [job for job in members(stage) if (job.get("status") or {}).get("phase") == "Succeeded"]


def await_success(stage: Stage, name_after: str = "") -> Json:
    """The first job of the series after this name that succeeded."""

    def found() -> list[Json]:
        return [job for job in succeeded(stage) if job["metadata"]["name"] > name_after]

    stage.wait(lambda: bool(found()), f"a job after {name_after or 'the start'}", most_s=200)
    return found()[0]


def test_series_does_only_what_is_new_at_each_tick(empty_stage: Stage) -> None:
    stage = empty_stage
    stage.put_pages(notes(0, 3))
    stage.install(series(stage, keepSucceeded=2))
    first = await_success(stage)
    stage.put_pages(notes(3, 5))
    known = succeeded(stage)[-1]["metadata"]["name"]
    while True:  # a tick may have listed the bucket just before
        job = await_success(stage, known)
        known = job["metadata"]["name"]
        if job["status"]["items"]["succeeded"]:
            second = job
            break
    third = await_success(stage, known)
    by_hand = "tick-by-hand"
    stage.kubectl("create", "job", "--from=cronjob/comics", by_hand)
    stage.kubectl("wait", "--for=condition=complete", f"job/{by_hand}", "--timeout=100s")

    assert [job["status"]["items"]["succeeded"] for job in (first, second, third)] == [3, 2, 0]
    views = {entry.key for entry in stage.store("out/comics/ocr_results").list("")}
    assert views == {f"note_{number:03}_ocr.json" for number in range(5)}
    assert third["metadata"]["annotations"]["pagemill.dev/scheduled-at"].endswith(":00.000Z")
    # Never two at once, never more than wanted, and the pods needed no more rights than they have.
    stage.wait(lambda: len(succeeded(stage)) <= 3, "the history is cut", most_s=130)
    assert "refused" not in {verb for _, verb in touched(stage, "pagemill-recurring")}
    assert {verb for _, verb in touched(stage, "pagemill-recurring")} == {"list", "create", "delete"}
    jobs = members(stage)
    for earlier, later in zip(jobs, jobs[1:], strict=False):
        ended = (earlier.get("status") or {}).get("completionTime")
        assert ended is None or ended <= later["metadata"]["creationTimestamp"]


def ticks(stage: Stage) -> int:
    """How many of the series' Kubernetes Jobs went well."""
    place = object_path("batch/v1", "jobs", stage.namespace)
    found = stage.api.call("GET", place, labelSelector="pagemill.dev/series=comics")["items"]
    return sum(1 for job in found if job["status"].get("succeeded"))


def test_series_skips_ticks_while_its_job_is_unfinished(empty_stage: Stage) -> None:
    stage = empty_stage
    values = series(stage)
    values["recurring"]["jobs"][0]["job"]["spec"]["suspend"] = True
    stage.install(values)
    stage.wait(lambda: ticks(stage) > 0, "the first tick", most_s=150)
    first = members(stage)
    stage.wait(lambda: ticks(stage) > 1, "one more tick", most_s=150)

    assert len(first) == 1
    assert [job["metadata"]["name"] for job in members(stage)] == [job["metadata"]["name"] for job in first]
    logs = [stage.log(pod["metadata"]["name"]) for pod in stage.pods("pagemill.dev/series=comics")]
    assert sum("Created the job" in log for log in logs) == 1
    assert sum("Skipped this run" in log for log in logs) == 1


def parallelism(stage: Stage) -> int:
    """What a job's spec asks for."""
    job = stage.read()
    return int(job["spec"]["workers"]["parallelism"]) if job else 0


def test_autoscaler_follows_what_is_left_to_do(empty_stage: Stage) -> None:
    stage = empty_stage
    values = stage.values()
    values["externalMetrics"] = {"enabled": True}
    metric = {"name": "pagemill-backlog-items", "selector": {"matchLabels": {"job": "comics"}}}
    autoscaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "comics"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "pagemill.dev/v1alpha1", "kind": "OcrJob", "name": "comics"},
            "minReplicas": 1,
            "maxReplicas": 3,
            "metrics": [
                {
                    "type": "External",
                    "external": {"metric": metric, "target": {"type": "AverageValue", "averageValue": "20"}},
                }
            ],
        },
    }
    stage.put_pages(notes(0, 300))
    try:
        stage.install(values)
        stage.apply(stage.job(engine=TESSERACT, sharding={"itemsPerShard": 5}))
        stage.kubectl("apply", "--filename=-", text=json.dumps(autoscaler))
        stage.wait(lambda: parallelism(stage) == 3, "the autoscaler's wish", most_s=240)
        seen = stage.kubectl("get", "hpa", "comics", "--output=jsonpath={.status.currentMetrics[0].external.current}")
        children = stage.jobs()
        stage.until_phase("Succeeded", "Failed", most_s=400)
    finally:  # what is not of a namespace does not go away with one
        stage.helm("uninstall", RELEASE, "--namespace", stage.namespace)

    assert "averageValue" in seen
    assert stage.status().done == "300/300"
    assert len(children) == 2  # plan and one wave: the running wave was widened, not begun anew
