"""The store away, closed to the operator, or with new keys, while real pods are at work on a node."""

from __future__ import annotations

import json
import time

import pytest
from testcluster import faults
from testcluster.api import Json
from testcluster.stage import JOB_SECRET, OPERATOR_SECRET, Stage

from pagemill_cli.testing.promises import broken_promises, marker_tokens
from pagemill_core.testing import ocr_pages

pytestmark = [pytest.mark.cluster, pytest.mark.node, pytest.mark.s3, pytest.mark.timeout(900)]

OUTAGE_S = 120.0
SECRET_PATIENCE_S = 100.0  # kubelet looks for new contents of a mounted Secret every minute or so


def start(stage: Stage, number_of_pages: int = 500, parallelism: int = 2) -> list[str]:
    """Start a job that takes a while. Returns: the pages' ids, once the first shards are done."""
    note = ocr_pages.note(2).as_bytes()
    ids = [f"page_{number:03}" for number in range(number_of_pages)]
    stage.put_pages({f"{name}.png": note for name in ids})
    job = stage.job(engine={"name": "tesseract", "languages": ["en"]}, sharding={"itemsPerShard": 2})
    job["spec"]["workers"]["parallelism"] = parallelism
    stage.apply(job)
    stage.wait(lambda: len(markers(stage)) >= 4, "4 shards done", most_s=90)
    return ids


def markers(stage: Stage) -> dict[str, str]:
    return marker_tokens(stage.store("out/comics"))


def progressing(stage: Stage) -> tuple[str, str]:
    found = stage.status().condition("Progressing")
    return (found.reason, found.message) if found is not None else ("", "")


def child_uids(stage: Stage) -> set[str]:
    return {job["metadata"]["uid"] for job in stage.jobs()}


def test_store_away_for_two_minutes_costs_time_alone(stage: Stage) -> None:
    ids = start(stage)
    done, children = markers(stage), child_uids(stage)
    server = stage.s3.server.server
    server.kill()
    away_at = time.monotonic()
    stage.wait(lambda: progressing(stage)[0] == "StoreUnavailable", "the condition", most_s=90)
    assert progressing(stage)[1].endswith("; pods go on")
    time.sleep(max(0.0, OUTAGE_S - (time.monotonic() - away_at)))
    assert child_uids(stage) == children
    server.start()

    back_s = stage.wait(lambda: progressing(stage)[0] != "StoreUnavailable", "the condition to go", most_s=60)
    stage.until_phase("Succeeded", most_s=400)

    assert back_s <= 30.0
    assert done.items() <= markers(stage).items()
    assert broken_promises(stage.store("out/comics"), ids) == []


def test_store_that_refuses_only_the_operator_does_not_stop_the_pods(stage: Stage) -> None:
    ids = start(stage)
    children = child_uids(stage)
    stage.secret(OPERATOR_SECRET, {"accessKey": "nobody", "secretKey": "wrong"})
    stage.wait(lambda: progressing(stage)[0] == "AccessDenied", "the condition", most_s=SECRET_PATIENCE_S)
    seen = len(markers(stage))
    if seen < len(ids) / 2:
        stage.wait(lambda: len(markers(stage)) > seen, "pods to go on")
    assert child_uids(stage) == children
    assert "pods go on" in progressing(stage)[1]
    stage.secret(OPERATOR_SECRET, stage.s3.credentials("worker"))

    stage.until_phase("Succeeded", most_s=2 * SECRET_PATIENCE_S + 200)

    assert broken_promises(stage.store("out/comics"), ids) == []


def test_credentials_rotated_while_a_job_runs_are_taken_up(stage: Stage) -> None:
    ids = start(stage, 900, parallelism=1)  # slow, so that Secrets reach its pods before it is over
    for name in (OPERATOR_SECRET, JOB_SECRET):
        stage.secret(name, stage.s3.credentials("admin"))
    uses_new = 'grep -q "^{}" /var/run/pagemill/store/accessKey'.format(stage.s3.credentials("admin")["accessKey"])
    for pod in faults.running(stage):
        stage.wait(
            lambda name=pod["metadata"]["name"]: has(stage, name, uses_new), "new keys", most_s=SECRET_PATIENCE_S
        )
    revoke_worker(stage)
    revoked_at = len(markers(stage))
    stage.kubectl("scale", "ocrjob/comics", "--replicas=4")

    stage.until_phase("Succeeded", most_s=600)

    assert revoked_at < len(ids) / 2, "the job was over before the keys were"
    assert faults.used_retries(stage) == {}
    assert broken_promises(stage.store("out/comics"), ids) == []


def has(stage: Stage, pod: str, check: str) -> bool:
    """Whether a command succeeds in a pod; also when the pod has ended meanwhile: the next one starts afresh."""
    if pod not in {each["metadata"]["name"] for each in faults.running(stage)}:
        return True
    try:
        stage.kubectl("exec", pod, "--", "sh", "-c", check)
    except AssertionError:
        return False
    return True


def revoke_worker(stage: Stage) -> None:
    """Give the server's identity `worker` another key; the old one is refused from now on."""
    server = stage.s3.server.server
    server.stop()
    path = server.folder / "state.json"
    state: Json = json.loads(path.read_text())
    state["access_keys"]["worker"] += "-new"
    path.write_text(json.dumps(state))
    server.start()
