"""The commands that look at outputs, on an EmbeddingJob's: verify, repair, cat, retry, gc."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagemill_cli.output.garbage import find_garbage, sweep
from pagemill_cli.output.item import find_item
from pagemill_cli.output.repair import repair_run
from pagemill_cli.output.retry import plan_retry
from pagemill_cli.output.target import Target
from pagemill_cli.output.verify import RunCheck, verify_output
from pagemill_cli.settings import CliSettings
from pagemill_core.api.v1alpha1 import EmbeddingJob
from pagemill_core.errors import BookMissing
from pagemill_core.storage.folder import FolderStore
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_worker.embed.rows import pack
from pagemill_worker.environment import JobEnvironment
from pagemill_worker.items import ItemFailure, ItemResult, PlannedItem
from pagemill_worker.plan.origin import original_job
from pagemill_worker.testing.made_embeddings import MadeEmbeddings, encoded, lost, make_job, unit_row


def make_items(*names: str) -> list[PlannedItem]:
    return [PlannedItem(row, name, f"/pictures/{name}.jpg", version="v1") for row, name in enumerate(names)]


def made(**spec: Any) -> MadeEmbeddings:
    return MadeEmbeddings(MemoryStore(), FakeClock(), make_job(**spec))


def target_of(output: MadeEmbeddings) -> Target:
    return Target(output.store.uri, output.writer, S3Settings(), CliSettings())


def check_of(output: MadeEmbeddings) -> list[RunCheck]:
    return list(verify_output(target_of(output)))


def a_or_lost(item: PlannedItem) -> ItemResult:
    return lost(item) if item.id == "b" else encoded(item)


def book(item: PlannedItem) -> ItemResult:
    if item.id == "gone":
        return ItemResult(item, "failed", failure=ItemFailure.of(BookMissing("there is no such folder")))
    facts, data = pack({"visual": np.ones((2, 4), np.float32), "text": unit_row(1, 3).repeat(2, axis=0)})
    pages = [{"name": f"{row}.png", "row": row, "status": "succeeded", "ocr": "text"} for row in range(2)]
    return ItemResult(item, "succeeded", {"rows": facts, "pages": pages}, data=data)


def made_books() -> MadeEmbeddings:
    text = {"model": {"name": "made-up-text"}}
    books = {"uri": "books", "annotations": "books.json"}
    return made(source={"books": books}, text=text, output={"uri": "out", "formats": ["bookTensors", "parquet"]})


def test_verify_of_a_whole_output_finds_nothing() -> None:
    output = made()
    output.finish(make_items("a", "b", "c"), a_or_lost)
    output.finish(make_items("d"))
    checks = check_of(output)
    assert [check.problems for check in checks] == [[], []]
    assert [check.items.succeeded for check in checks] == [1, 2]


@pytest.mark.parametrize("key", ["embeddings.parquet", "failures.parquet", "metadata.json"])
@pytest.mark.parametrize("damage", ["gone", "cut", "flipped"])
def test_verify_finds_a_damaged_table_and_repair_makes_the_same_bytes(key: str, damage: str) -> None:
    output = made()
    output.finish(make_items("a", "b", "c"), a_or_lost)
    whole = output.store.get(key)
    if damage == "gone":
        output.store.delete(key)
    else:
        data = whole.data[:-1] if damage == "cut" else bytes([whole.data[0] ^ 1]) + whole.data[1:]
        output.store.put(key, data, meta=whole.meta)
    (check,) = check_of(output)
    assert [problem.fault for problem in check.problems][0] == "TableWrong"
    assert {problem.key for problem in check.problems} >= {key}
    after = repair_run(target_of(output), check)
    assert after.problems == []
    assert output.store.get(key).data == whole.data


def test_verify_finds_a_damaged_dataset_and_repair_makes_the_same_bytes() -> None:
    output = made()
    output.finish(make_items("a", "b", "c"), a_or_lost)
    key = "dataset/run=00000001/part-00000.parquet"
    whole = output.store.get(key).data
    output.store.put(key, whole[:100])
    (check,) = check_of(output)
    assert ("DatasetWrong", key) in {(problem.fault, problem.key) for problem in check.problems}
    assert repair_run(target_of(output), check).problems == []
    assert output.store.get(key).data == whole


def test_verify_finds_a_lost_side_of_a_book_and_repair_makes_it_again() -> None:
    output = made_books()
    output.finish(make_items("one", "gone", "two"), book)
    assert {info.key for info in output.store.list("") if info.key.startswith(("visual", "text", "records"))} == {
        "visual/one.pt",
        "visual/two.pt",
        "text/one.pt",
        "text/two.pt",
        "records/one.json",
        "records/gone.json",
        "records/two.json",
    }
    whole = output.store.get("text/two.pt").data
    output.store.delete("text/two.pt")
    (check,) = check_of(output)
    assert [(problem.fault, problem.key) for problem in check.problems] == [("ViewMissing", "text/two.pt")]
    assert repair_run(target_of(output), check).problems == []
    assert output.store.get("text/two.pt").data == whole


def test_cat_prints_an_items_vectors() -> None:
    output = made()
    output.finish(make_items("a", "b"), a_or_lost)
    found = find_item(target_of(output), "a", "text")
    assert found is not None
    item = json.loads(found.data or b"")
    assert (item["id"], item["status"], item["facts"]) == ("a", "succeeded", {"height": 480, "width": 640})
    assert np.allclose(item["vectors"]["visual"]["rows"], unit_row(0))
    failed = find_item(target_of(output), "b", "text")
    assert failed is not None
    assert failed.result is not None
    assert failed.result.failure is not None
    assert failed.result.failure.error_class == "ImageMissing"
    assert find_item(target_of(output), "z", "text") is None


def test_retry_of_failed_items_has_the_same_models_and_knows_that_they_are_books(tmp_path: Path) -> None:
    output = made_books()
    output.store = FolderStore(tmp_path, fsync=False)
    output.__post_init__()
    output.finish(make_items("one", "gone"), book)
    plan = plan_retry(target_of(output), output.job)
    assert (plan.failed, plan.incurable) == (1, 0)
    assert isinstance(plan.job, EmbeddingJob)
    assert (plan.job.spec.visual, plan.job.spec.text) == (output.job.spec.visual, output.job.spec.text)
    assert not plan.job.spec.has_books, "the file itself names a run alone"
    environment = JobEnvironment(plan.job, tmp_path, S3Settings())
    environment = replace(environment, job=job_at(plan.job, tmp_path))
    job = original_job(environment, plan.job)
    assert job.spec.has_books
    assert job.spec.effective_visual_normalize == "none"
    assert job.spec.effective_text_format == "referenceJson"


def test_retry_of_a_run_that_is_not_there_is_left_to_the_planner_to_refuse(tmp_path: Path) -> None:
    job = job_at(make_job(source={"retryOf": {"run": "00000007-9c66e1f0"}}), tmp_path)
    assert original_job(JobEnvironment(job, tmp_path, S3Settings()), job) == job


def job_at(job: EmbeddingJob, folder: Path) -> EmbeddingJob:
    output = job.spec.output.model_copy(update={"uri": str(folder)})
    return job.model_copy(update={"spec": job.spec.model_copy(update={"output": output})})


def test_gc_collects_a_run_that_a_newer_one_holds_entirely() -> None:
    clock = FakeClock()
    output = MadeEmbeddings(MemoryStore(), clock)
    for _ in range(2):
        output.finish(make_items("a", "b", "c"))
        clock.advance(3 * 24 * 3600)
    found = find_garbage(target_of(output), keep=1)
    assert [held.run[:8] for held in found.superseded] == ["00000001"]
    sweep(target_of(output), found, lambda _: None)
    assert [info.key for info in output.store.list("dataset/")] == ["dataset/run=00000002/part-00000.parquet"]
    output.finish(make_items("d"))
    assert [check.problems for check in check_of(output)] == [[], [], []]
