"""Incremental jobs from end to end: new, changed, gone and failed items over several runs on one output."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq
import pytest

from pagemill_cli.testing.forked_runs import Ended, ForkedRuns, folder_in_memory
from pagemill_cli.testing.job_folder import JobFolder
from pagemill_cli.testing.promises import newest_entry, take_picture
from pagemill_core.storage.folder import FolderStore
from pagemill_core.work.layout import INDEX_POINTER
from pagemill_core.work.records import IndexPointer
from pagemill_worker.testing.instant import BREAK

SPEC = {"sharding": {"itemsPerShard": 2}, "incremental": True, "retries": {"maxFailedItems": "100%", "perItem": 2}}


class Stage:
    spec: dict[str, Any]

    def __init__(self, folder: JobFolder, *, is_listed: bool) -> None:
        self.folder = folder
        self.is_listed = is_listed
        self.store = FolderStore(folder.output, fsync=False)

    def run(self, pages: dict[str, str | None] | None = None) -> list[str]:
        """Run with these pages. Returns: the ids that were read, sorted."""
        if pages is not None:
            self.folder.set_pages(pages)
        self.folder.log.unlink(missing_ok=True)
        ended = self.run_only()
        assert ended.status == 0, ended
        self.told: dict[str, Any] = json.loads(ended.stdout)
        return sorted(self.folder.begun())

    def run_only(self) -> Ended:
        forked = ForkedRuns.shared()
        plain = forked.request("run", str(self.folder.file), "--quiet", "--output", "json", "-p", "1")
        return forked.run(replace(plain, log=str(self.folder.log)))

    def index(self) -> dict[str, tuple[str, int]]:
        pointer = IndexPointer.from_bytes(self.store.get(INDEX_POINTER).data, INDEX_POINTER)
        tables = [pq.read_table(io.BytesIO(self.store.get(part.key).data)) for part in pointer.parts]
        return {row["id"]: (row["status"], row["failed_runs"]) for table in tables for row in table.to_pylist()}

    def text(self, item: str) -> str:
        return str(json.loads(self.store.get(f"ocr_results/{item}_ocr.json").data)["full_text"])


@pytest.fixture(params=["listing", "manifest"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A listing tells the planner every page's version; a manifest tells none, so workers ask page by page."""
    with folder_in_memory() as root:
        source = {"source": {"images": {"uri": str(root / "pages")}}} if request.param == "listing" else {}
        stage = Stage(JobFolder(root, {}, {**SPEC, **source}), is_listed=request.param == "listing")
        stage.spec = {**SPEC, **source}
        yield stage


FIRST: dict[str, str | None] = {"a": "one", "b": "two", "c": "three"}


def test_incremental_run_reads_what_is_new_and_what_changed(stage: Stage) -> None:
    assert stage.run(FIRST) == ["a", "b", "c"]
    assert stage.run({**FIRST, "b": "two, but longer", "d": "four"}) == ["b", "d"]
    assert stage.text("b") == "two, but longer"
    assert stage.text("a") == "one"
    rows = {row["id"]: row["status"] for row in take_picture(stage.store).rows}
    unchanged = {} if stage.is_listed else {"a": "skipped", "c": "skipped"}
    assert rows == {"b": "succeeded", "d": "succeeded", **unchanged}
    assert newest_entry(stage.store).seq == 2
    assert {item: status for item, (status, _) in stage.index().items()} == dict.fromkeys("abcd", "succeeded")


def test_incremental_run_with_nothing_new_reads_nothing_twice_in_a_row_and_soon(stage: Stage) -> None:
    stage.run(FIRST)
    for _ in range(2):
        started = time.monotonic()
        assert stage.run() == []
        assert stage.told["items"]["planned"] == stage.told["items"]["skipped"]
        assert stage.told["items"]["planned"] == (0 if stage.is_listed else 3)
        assert time.monotonic() - started < 30


def test_incremental_item_that_left_becomes_a_tombstone_and_is_read_again_when_it_returns(stage: Stage) -> None:
    stage.run(FIRST)
    assert stage.run({"a": "one", "b": "two"}) == []
    assert stage.index()["c"] == ("tombstone", 0)
    assert stage.store.head("ocr_results/c_ocr.json") is not None, "only gc may delete a view"
    assert stage.run(FIRST) == ["c"]
    assert stage.index()["c"] == ("succeeded", 0)


def test_incremental_failed_item_is_tried_in_later_runs_only_so_often(stage: Stage) -> None:
    pages = {**FIRST, "b": BREAK}
    assert stage.run(pages) == ["a", "b", "c"]
    assert [stage.run(pages) for _ in range(4)] == [["b"], ["b"], [], []], "perItem: 2 tries after the first"
    assert stage.index()["b"] == ("failed", 3)
    assert stage.run({**pages, "b": "mended"}) == ["b"], "a changed item gets its tries anew"
    assert stage.index()["b"] == ("succeeded", 0)


def test_incremental_item_that_fails_after_it_changed_hides_its_older_success_in_the_index(stage: Stage) -> None:
    stage.run(FIRST)
    assert stage.run({**FIRST, "a": BREAK}) == ["a"]
    assert stage.index()["a"] == ("failed", 1)
    assert stage.text("a") == "one", "its last good text is still there"
    assert stage.run({**FIRST, "a": "one again"}) == ["a"]
    assert stage.text("a") == "one again"


def test_incremental_item_whose_file_is_missing_is_planned_again_until_it_appears(stage: Stage) -> None:
    pages = {**FIRST, "d": None}
    unlisted = [] if stage.is_listed else ["d"]  # a listing does not show what is not there
    assert stage.run(pages) == ["a", "b", "c", *unlisted]
    assert stage.run(pages) == unlisted
    assert stage.run({**FIRST, "d": "here now"}) == ["d"]
    assert stage.text("d") == "here now"


def test_incremental_turned_on_later_builds_on_what_was_done_before(stage: Stage) -> None:
    stage.folder.set_spec({**stage.spec, "incremental": False})
    assert stage.run(FIRST) == ["a", "b", "c"]
    assert stage.run({**FIRST, "d": "four"}) == [], "a finished job is done, whatever its source holds now"
    stage.folder.set_spec(stage.spec)
    assert stage.run() == ["d"]


def test_incremental_source_emptied_and_filled_again(stage: Stage) -> None:
    stage.run(FIRST)
    assert stage.run({}) == []
    assert {status for status, _ in stage.index().values()} == {"tombstone"}
    assert stage.run(FIRST) == ["a", "b", "c"]
