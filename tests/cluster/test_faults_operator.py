"""The operator's process killed on a real node: the job goes on, and nothing its users saw is lost."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Literal

import pytest
from testcluster import faults
from testcluster.stage import Stage

from pagemill_cli.testing.promises import broken_promises, newest_entry
from pagemill_core.testing import ocr_pages

pytestmark = [pytest.mark.cluster, pytest.mark.node, pytest.mark.s3, pytest.mark.timeout(1800)]

CONVERGED_S = 30.0
# Kills, and pages and pods such that the job outlasts them: a pod reads up to fifteen of these pages a second.
SIZES = {"short": (15, 1800, 2), "long": (100, 8000, 1)}
REPORT = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "chaos-cluster.json"


def test_operator_killed_at_random_moments_loses_nothing(
    stage: Stage, chaos_length: Literal["short", "long"], tmp_path: Path
) -> None:
    kills, pages, parallelism = SIZES[chaos_length]
    ids = [f"page_{number:04}" for number in range(pages)]
    note = ocr_pages.note(1).as_bytes()
    stage.put_pages({f"{name}.png": note for name in ids})
    job = stage.job(engine={"name": "tesseract", "languages": ["en"]}, sharding={"itemsPerShard": pages // 200})
    job["spec"]["workers"]["parallelism"] = parallelism
    rng = random.Random(15)
    with faults.status_log(stage) as log:
        stage.apply(job)
        for kill in range(kills):
            # Early ones are close together: that is when the operator writes most.
            time.sleep(rng.uniform(0.0, 1.0 if kill < 5 else 5.0))
            faults.kill_operator(stage)
        stage.kubectl("scale", "ocrjob/comics", "--replicas=3")
        generation = (stage.read() or {})["metadata"]["generation"]
        converged_s = stage.until(lambda status: status.observed_generation == generation, most_s=2 * CONVERGED_S)
        phase = stage.status().phase
        stage.until_phase("Succeeded", most_s=1200)

    store = stage.store("out/comics")
    found = {
        "kills": kills,
        "pages": pages,
        "converged_s": round(converged_s, 1),
        "lost_status": log.losses,
        "broken_promises": broken_promises(store, ids),
        "used_retries": faults.used_retries(stage),
        "runs": newest_entry(store).seq,
        "jobs": sorted(one["metadata"]["labels"]["pagemill.dev/step"] for one in stage.jobs()),
    }
    report = REPORT if chaos_length == "long" else tmp_path / REPORT.name
    report.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    assert phase == "Running"  # the kills came in time
    assert converged_s <= CONVERGED_S
    assert found == {
        **found,
        "lost_status": [],
        "broken_promises": [],
        "used_retries": {},
        "runs": 1,
        "jobs": ["finalize", "plan", "work"],
    }
