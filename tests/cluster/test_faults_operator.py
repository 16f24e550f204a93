"""The operator's process killed on a real node: the job goes on, and nothing its users saw is lost."""

from __future__ import annotations

import random
import time

import pytest
from testcluster import faults
from testcluster.stage import Stage

from pagemill_cli.testing.promises import broken_promises, newest_entry
from pagemill_core.testing import ocr_pages

pytestmark = [pytest.mark.cluster, pytest.mark.node, pytest.mark.s3, pytest.mark.timeout(900)]

KILLS = 15
CONVERGED_S = 30.0


def test_operator_killed_at_random_moments_loses_nothing(stage: Stage) -> None:
    ids = [f"page_{number:03}" for number in range(600)]
    note = ocr_pages.note(1).as_bytes()
    stage.put_pages({f"{name}.png": note for name in ids})
    job = stage.job(engine={"name": "tesseract", "languages": ["en"]}, sharding={"itemsPerShard": 3})
    job["spec"]["workers"]["parallelism"] = 2
    rng = random.Random(15)
    with faults.status_log(stage) as log:
        stage.apply(job)
        for kill in range(KILLS):
            # Early ones are close together: that is when the operator writes most.
            time.sleep(rng.uniform(0.0, 1.0 if kill < 5 else 5.0))
            faults.kill_operator(stage)
        stage.kubectl("scale", "ocrjob/comics", "--replicas=3")
        generation = stage.read("comics")["metadata"]["generation"]
        converged_s = stage.until(lambda status: status.observed_generation == generation, most_s=2 * CONVERGED_S)
        phase = stage.status().phase
        stage.until_phase("Succeeded", most_s=300)

    assert phase == "Running"  # the kills came in time
    assert converged_s <= CONVERGED_S
    assert log.losses == []
    assert broken_promises(stage.store("out/comics"), ids) == []
    assert newest_entry(stage.store("out/comics")).seq == 1
    assert faults.used_retries(stage) == {}
    steps = [one["metadata"]["labels"]["pagemill.dev/step"] for one in stage.jobs()]
    assert sorted(steps) == ["finalize", "plan", "work"]
