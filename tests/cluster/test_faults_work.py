"""Disturbances of a job at work on a real node: each page is read, counted and published exactly once all the same."""

from __future__ import annotations

import json

import pytest
from testcluster import faults
from testcluster.api import Json
from testcluster.stage import Stage

from pagemill_cli.testing.promises import broken_promises, marker_tokens, newest_entry, newest_run
from pagemill_core.testing import ocr_pages
from pagemill_core.work.layout import shard_of

pytestmark = [pytest.mark.cluster, pytest.mark.node, pytest.mark.s3, pytest.mark.timeout(600)]

PAGES = 300
CONVERGED_S = 30.0
OUTPUT = "out/comics"


def put_pages(stage: Stage, number_of_pages: int = PAGES) -> list[str]:
    """Small pages, which tesseract reads in a tenth of a second. Returns: their ids in the plan's order."""
    kinds = [ocr_pages.note(number).as_bytes() for number in range(len(ocr_pages.PROSE))]
    ids = [f"page_{number:03}" for number in range(number_of_pages)]
    stage.put_pages({f"{name}.png": kinds[number % len(kinds)] for number, name in enumerate(ids)})
    return ids


def small_job(stage: Stage, parallelism: int = 2, name: str = "comics") -> Json:
    job = stage.job(
        name,
        engine={"name": "tesseract", "languages": ["en"]},
        output={"uri": f"s3://{stage.bucket}/{OUTPUT}"},
        sharding={"itemsPerShard": 2},
    )
    job["spec"]["workers"]["parallelism"] = parallelism
    return job


def markers(stage: Stage) -> dict[str, str]:
    return marker_tokens(stage.store(OUTPUT))


def until_markers(stage: Stage, least: int) -> None:
    stage.wait(lambda: len(markers(stage)) >= least, f"{least} shards done")


def check_exactly_once(stage: Stage, ids: list[str]) -> None:
    """Every promise to users holds, in one run, and no disturbance was counted as a failed try."""
    assert broken_promises(stage.store(OUTPUT), ids) == []
    assert newest_entry(stage.store(OUTPUT)).seq == 1
    assert faults.used_retries(stage) == {}


def test_job_suspended_scaled_deleted_and_applied_again_goes_on(stage: Stage) -> None:
    ids, job = put_pages(stage, 2 * PAGES), small_job(stage)
    stage.apply(job)
    until_markers(stage, 3)
    with faults.status_log(stage) as log:
        stage.patch("comics", {"suspend": True})
        stage.until_phase("Suspended", most_s=CONVERGED_S)
        stage.wait(lambda: not faults.running(stage), "no pod at work", most_s=CONVERGED_S)
        paused = markers(stage)
        stage.patch("comics", {"suspend": False})
        stage.until_phase("Running", most_s=CONVERGED_S)
        stage.kubectl("scale", "ocrjob/comics", "--replicas=6")
        faults.until_running(stage, 6, most_s=CONVERGED_S)
        stage.kubectl("scale", "ocrjob/comics", "--replicas=2")
        stage.wait(lambda: len(faults.running(stage)) <= 2, "2 pods", most_s=CONVERGED_S)
        before = markers(stage)
        stage.delete()
        stage.apply(job)
        stage.until(lambda status: status.planned_at is not None, most_s=CONVERGED_S)
        stage.until_phase("Succeeded", most_s=200)

    assert 3 <= len(paused) <= len(before) < len(ids) / 2
    assert log.losses == []
    assert before.items() <= markers(stage).items()
    check_exactly_once(stage, ids)


def test_pods_deleted_and_drained_use_up_no_retries(stage: Stage) -> None:
    ids, name = put_pages(stage), f"drained-{stage.namespace[-8:]}"
    stage.apply(small_job(stage, name=name))
    for pod in faults.until_running(stage, 2):
        stage.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
    until_markers(stage, 20)
    with faults.drained(stage, name):
        stage.wait(lambda: not faults.running(stage), "no pod on the node")
    faults.until_running(stage, 1, most_s=CONVERGED_S)

    stage.until_phase("Succeeded", name=name, most_s=200)

    check_exactly_once(stage, ids)


def test_whole_job_and_its_containers_lost_are_made_anew(stage: Stage) -> None:
    ids = put_pages(stage)
    stage.apply(small_job(stage))
    killed = sum(faults.kill_pod(pod) for pod in faults.until_running(stage, 2))
    until_markers(stage, 10)
    work = next(job["metadata"]["name"] for job in stage.jobs() if "-w1" in job["metadata"]["name"])
    stage.kubectl("delete", "job", work, "--wait=false")
    lost = len(markers(stage))
    took_s = stage.wait(lambda: len(markers(stage)) > lost, "work to go on", most_s=2 * CONVERGED_S)

    stage.until_phase("Succeeded", most_s=200)

    assert killed >= 2
    assert took_s < 2 * CONVERGED_S
    assert broken_promises(stage.store(OUTPUT), ids) == []
    assert newest_entry(stage.store(OUTPUT)).seq == 1


def test_finished_job_applied_again_starts_no_pod(stage: Stage) -> None:
    ids, job = put_pages(stage, 12), small_job(stage)
    stage.apply(job)
    stage.until_phase("Succeeded", most_s=200)
    before = markers(stage)
    stage.delete()
    stage.wait(lambda: not stage.pods(), "the old pods to go")
    stage.apply(job)

    took_s = stage.until_phase("Succeeded", most_s=60)

    assert took_s < CONVERGED_S
    assert stage.pods() == []
    assert stage.jobs() == []
    assert stage.status().done == "12/12"
    assert markers(stage) == before
    assert broken_promises(stage.store(OUTPUT), ids) == []


def test_missing_shards_and_no_others_are_worked_on_again(stage: Stage) -> None:
    ids, job = put_pages(stage, 160), small_job(stage)
    stage.apply(job)
    until_markers(stage, 45)
    stage.patch("comics", {"suspend": True})
    stage.wait(lambda: not faults.running(stage), "no pod at work", most_s=CONVERGED_S)
    stage.delete()
    missing, before = lose_markers(stage, but_missing=37), attempts(stage)
    stage.apply(job)

    stage.until_phase("Succeeded", most_s=200)

    assert sorted(shard_of(key) for key in attempts(stage) - before) == missing
    steps = [job["metadata"]["labels"]["pagemill.dev/step"] for job in stage.jobs()]
    assert sorted(steps) == ["finalize", "work"]
    check_exactly_once(stage, ids)


def attempts(stage: Stage) -> set[str]:
    """The keys of all attempts at shards."""
    store = stage.store(OUTPUT)
    return {info.key for info in store.list(f"{newest_run(store).prefix}attempts/")}


def lose_markers(stage: Stage, *, but_missing: int) -> list[int]:
    """Delete markers until so many shards are missing. Returns: the missing ones."""
    store = stage.store(OUTPUT)
    layout = newest_run(store)
    total = json.loads(store.get(layout.plan_pointer).data)["shards"]
    done = sorted(markers(stage))
    surplus = but_missing - (total - len(done))
    assert surplus >= 0, f"{len(done)} of {total} shards are done: too few are missing"
    for key in done[:surplus]:
        store.delete(key)
    return [shard for shard in range(total) if layout.marker(shard) not in done[surplus:]]
