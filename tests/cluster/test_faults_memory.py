"""Pages that need more memory than a pod has: more is tried, and what never fits fails alone, by name."""

from __future__ import annotations

import pytest
from testcluster import faults
from testcluster.api import Json
from testcluster.stage import Stage

from pagemill_cli.testing.promises import broken_promises, newest_run, take_picture
from pagemill_core.clock import SystemClock
from pagemill_core.testing import ocr_pages
from pagemill_core.work.conditional import Writer
from pagemill_core.work.waves import count, read_wave

pytestmark = [pytest.mark.cluster, pytest.mark.node, pytest.mark.s3, pytest.mark.timeout(600)]

SMALL_MIB, LARGE_MIB = 448, 896
# Decoding takes about seven bytes a pixel, beside some 300 MiB that an engine and its supervisor hold.
HUNGRY_PX, POISON_PX = 6000, 13_000
GROUP_KILL_BYTES = 250 << 20  # before the supervisor would notice, and more than small pages need


def put_pages(stage: Stage, *large: tuple[str, int]) -> list[str]:
    pages = {f"page_{number:03}.png": ocr_pages.note(number).as_bytes() for number in range(8)}
    pages |= {f"{name}.png": ocr_pages.large_white_png(side_px, side_px) for name, side_px in large}
    stage.put_pages(pages)
    return sorted(name.removesuffix(".png") for name in pages)


def install(stage: Stage, most_mib: int) -> None:
    values = stage.values()
    values["config"]["pools"] = [{"name": "cpu", "cpu": "1", "memory": f"{SMALL_MIB}Mi", "maxMemory": f"{most_mib}Mi"}]
    stage.install(values)


def job_of(stage: Stage, **spec: Json) -> Json:
    retries = {"maxFailedItems": "50%", **spec.pop("retries", {})}
    engine, sharding = {"name": "tesseract", "languages": ["en"]}, {"itemsPerShard": 5}
    return stage.job(engine=engine, sharding=sharding, retries=retries, **spec)


def failures(stage: Stage) -> dict[str, str]:
    rows = take_picture(stage.store("out/comics")).rows
    return {row["id"]: row["error_class"] for row in rows if row["status"] != "succeeded"}


def test_page_too_large_for_a_pod_gets_more_memory_and_then_fails_by_name(empty_stage: Stage) -> None:
    install(empty_stage, LARGE_MIB)
    ids = put_pages(empty_stage, ("large_hungry", HUNGRY_PX), ("large_poison", POISON_PX))
    empty_stage.apply(job_of(empty_stage))

    empty_stage.until_phase("Succeeded", "Failed", most_s=400)

    assert failures(empty_stage) == {"large_poison": "ItemKilledWorker"}, empty_stage.report()
    assert broken_promises(empty_stage.store("out/comics"), ids) == []
    complete = empty_stage.status().condition("Complete")
    assert complete is not None
    assert (complete.reason, complete.message) == ("CompletedWithFailures", "1 of 10 items failed")
    work = [job for job in empty_stage.jobs() if job["metadata"]["labels"]["pagemill.dev/step"] == "work"]
    limits = [job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] for job in work]
    assert limits == [f"{SMALL_MIB}Mi", str(LARGE_MIB << 20)]
    store = empty_stage.store("out/comics")
    wave = read_wave(Writer(store, SystemClock()), newest_run(store), 2)
    assert wave is not None
    assert count(wave.ranges) == 1, "of the two shards only the one with the large pages is done again"


def test_page_that_kills_its_whole_pod_fails_alone(empty_stage: Stage) -> None:
    install(empty_stage, SMALL_MIB)
    ids = put_pages(empty_stage, ("large_poison", POISON_PX))
    with faults.group_killer(empty_stage, least_bytes=GROUP_KILL_BYTES) as killer:
        empty_stage.apply(job_of(empty_stage, retries={"perItem": 1}))
        empty_stage.until_phase("Succeeded", "Failed", most_s=500)

    assert killer.kills >= 2
    assert failures(empty_stage) == {"large_poison": "ItemKilledWorker"}, empty_stage.report()
    assert broken_promises(empty_stage.store("out/comics"), ids) == []
