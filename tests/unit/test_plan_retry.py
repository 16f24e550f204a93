"""What a retry makes of failed items: parts of files keep their version, faults of the source's rows stay out."""

from __future__ import annotations

from typing import Any

import pytest

from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_worker.items import ItemFailure, ItemResult, PlannedItem
from pagemill_worker.plan.retry import retry_request
from pagemill_worker.testing.made_embeddings import MadeEmbeddings, make_job

CLASSES = {
    "whole": "FetchFailed",
    "member": "FetchFailed",
    "book": "BookMissing",
    "twice": "DuplicateId",
    "null": "RowUnusable",
    "part": "PartUnreadable",
    "partition": "PartUnreadable",
    "rows": "PartUnreadable",
}
INPUTS: dict[str, dict[str, Any]] = {
    "member": {"offset": 512, "size": 9},
    "book": {"order": "natural", "ocr": "s3://l/ocr", "pages": 0},
    "partition": {"partition": 0, "rank": 0},
    "rows": {"partition": 1, "rank": 1, "start": 0, "stop": 8},
}


def failed(item: PlannedItem) -> ItemResult:
    return ItemResult(item, "failed", failure=ItemFailure(CLASSES[item.id], "it failed"))


@pytest.mark.parametrize(("source", "is_paged"), [("dataset", False), ("books", False), ("images", True)], ids=str)
def test_retry_takes_what_may_succeed_as_it_was_planned(source: str, is_paged: bool) -> None:
    sources: dict[str, dict[str, Any]] = {
        "dataset": {"source": {"dataset": {"uri": "set"}}},
        "books": {"source": {"books": {"uri": "books"}}, "text": {"model": {"name": "made-up"}}},
        "images": {},
    }
    made = MadeEmbeddings(MemoryStore("out"), FakeClock(), make_job(**sources[source]), shard_items=10)
    items = [
        PlannedItem(row, name, f"s3://lib/{name}", version="v1", input=INPUTS.get(name, {}))
        for row, name in enumerate(CLASSES)
    ]
    held = made.claim()
    kind = made.plan(held, items, {"n": "int64"})
    made.commit_all(kind, failed)
    request = retry_request(made.writer, held.run)
    again = {item.id: item for item in request.items}
    assert list(again) == ["whole", "member", "book", "partition", "rows"]
    assert [again[name].version for name in again] == [None, "v1", None, None, "v1"], "parts of files keep theirs"
    assert [dict(item.input) for item in again.values()] == [{}, *INPUTS.values()]
    assert request.is_paged is is_paged
    assert request.columns == {"n": "int64"}
