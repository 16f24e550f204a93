"""An OcrJob's output as a source: newest successes, failures told, pages or books."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pagemill_core.errors import SourceChanged, SourceError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.work import layout
from pagemill_core.work.records import IndexPart, IndexPointer, RunEntry, RunState
from pagemill_worker.embed.books import planned_book, read_text
from pagemill_worker.embed.page_text import page_text
from pagemill_worker.fetch.local import LocalFetcher
from pagemill_worker.finalize.dataset import schema, write_part
from pagemill_worker.items import ItemFailure, ItemResult, PlannedItem, Status
from pagemill_worker.ocr.engine import Region
from pagemill_worker.plan.digests import identity_digest
from pagemill_worker.plan.known import ITEM_INDEX_SCHEMA
from pagemill_worker.plan.planner import PlanResult, PlanTools, plan_source
from pagemill_worker.plan.reader import ShardReader
from pagemill_worker.plan.request import KeyRules, OcrOutputRequest, PlanRequest
from pagemill_worker.views.row import OcrRow, to_payload

PAGES = OcrOutputRequest(uri="memory://ocr")
BOOKS = OcrOutputRequest(uri="memory://ocr", by_folder=True)


@dataclass(frozen=True)
class Page:
    id: str
    text: str = "text"
    status: Status = "succeeded"
    page: int | None = None


def entry(store: MemoryStore, seq: int, state: RunState = "Finished") -> None:
    record = RunEntry(seq=seq, work_key="0" * 64, kind="OcrJob", state=state)
    store.put(layout.run_entry(seq), record.to_bytes())


def run(store: MemoryStore, seq: int, pages: Sequence[Page], part_rows: int = 2) -> None:
    """Write run `seq` of an OcrJob: its ledger entry and its dataset."""
    entry(store, seq)
    results = []
    for number, page in enumerate(pages):
        item = PlannedItem(
            number, page.id, f"s3://scans/{page.id}.png", page=page.page, version="v1", columns={"lang": "en"}
        )
        row = OcrRow(
            id=page.id,
            source_uri=item.uri,
            status="succeeded",
            engine_name="x",
            engine_version="1",
            finished_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
            regions=(Region(text=page.text, confidence=0.5, bbox=(1, 2, 3, 4), polygon=None, level="line"),),
            width_px=10,
            height_px=10,
        )
        failure = ItemFailure("ImageEmpty", "zero bytes") if page.status == "failed" else None
        payload = to_payload(row) if page.status == "succeeded" else None
        results.append(ItemResult(item, page.status, payload, failure, version_read=f"v{seq}"))
    for part in range(0, len(results), part_rows):
        key = layout.dataset_part(seq, part // part_rows)
        write_part(store, key, [results[part : part + part_rows]], schema(["lang"], "f"), ["lang"])


def planned(
    request: OcrOutputRequest, scratch: Path, store: MemoryStore, out: MemoryStore | None = None
) -> tuple[PlanResult, list[PlannedItem]]:
    scratch.mkdir(exist_ok=True)
    out = out or MemoryStore("out")
    tools = PlanTools(
        open_store=lambda _: store,
        count_pages=lambda uri: pytest.fail(f"counts the pages of {uri}"),
        store=out,
        prefix="plan/x/",
        scratch=scratch,
    )
    keys = KeyRules(prefix="records", suffixes=(".pt",)) if request.by_folder else KeyRules(are_keys=False)
    result = plan_source(PlanRequest(source=request, keys=keys), tools)
    return result, [item for _, item in ShardReader(out, result.parts).all_items()]


def test_ocr_pages_become_items_with_text_place_and_version(tmp_path: Path) -> None:
    store = MemoryStore("ocr")
    run(
        store,
        1,
        [Page("b/1", "one"), Page("b/2", "zwei é"), Page("scan#p0003", "three", page=2), Page("bad", status="failed")],
    )
    result, items = planned(PAGES, tmp_path, store)
    assert [(item.id, item.uri, item.page, item.version) for item in items] == [
        ("b/1", "s3://scans/b/1.png", None, "v1"),
        ("b/2", "s3://scans/b/2.png", None, "v1"),
        ("scan#p0003", "s3://scans/scan#p0003.png", 2, "v1"),
        ("bad", "s3://scans/bad.png", None, "v1"),
    ]
    assert [item.input.get("text") for item in items] == ["one", "zwei é", "three", None]
    assert items[3].failure and items[3].failure.error_class == "RowUnusable"
    assert "ImageEmpty: zero bytes" in items[3].failure.message
    assert items[0].columns == {"lang": "en"}
    assert result.columns == {"lang": "string"}


def test_ocr_pages_of_several_runs_count_once_newest_success_first(tmp_path: Path) -> None:
    store = MemoryStore("ocr")
    run(store, 1, [Page("a", "old"), Page("b", "b1"), Page("c", status="failed"), Page("d", status="failed")])
    run(store, 2, [Page("a", "new"), Page("b", status="failed"), Page("c", "c2"), Page("a", status="failed")])
    run(store, 3, [Page("a", status="skipped"), Page("d", status="failed")])
    _, items = planned(PAGES, tmp_path, store)
    assert [(item.id, item.input.get("text"), item.version) for item in items] == [
        ("b", "b1", "v1"),
        ("a", "new", "v2"),
        ("c", "c2", "v2"),
        ("d", None, "v3"),
    ]


def test_ocr_pages_that_left_the_source_are_left_out(tmp_path: Path) -> None:
    store = MemoryStore("ocr")
    run(store, 1, [Page("a"), Page("b")])
    rows = {
        "identity": [identity_digest(name) for name in ("a", "b")],
        "id": ["a", "b"],
        "version": [None, None],
        "fingerprint": ["f", "f"],
        "status": ["succeeded", "tombstone"],
        "failed_runs": [0, 0],
    }
    path = tmp_path / "index.parquet"
    pq.write_table(pa.table(rows, schema=ITEM_INDEX_SCHEMA), path)
    store.put_file("index/0", path)
    pointer = IndexPointer(seq=1, run="00000001-00000000", parts=[IndexPart(key="index/0", size=1, rows=2)])
    store.put(layout.INDEX_POINTER, pointer.to_bytes())
    _, items = planned(PAGES, tmp_path / "scratch", store)
    assert [item.id for item in items] == ["a"]


def test_ocr_output_that_is_not_whole_or_none_is_refused(tmp_path: Path) -> None:
    store = MemoryStore("ocr")
    with pytest.raises(SourceError, match="holds no dataset of an OcrJob"):
        planned(PAGES, tmp_path, store)
    run(store, 1, [Page("a")])
    entry(store, 2, "Open")
    with pytest.raises(SourceError, match="run 2 of the OcrJob there is not finished") as caught:
        planned(PAGES, tmp_path, store)
    assert "source.ocrJob.name" in caught.value.advice
    other = MemoryStore("ocr")
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"id": ["a"], "embedding": [[1.0]]}), path)
    other.put_file(layout.dataset_part(1, 0), path)
    with pytest.raises(SourceError, match="is not the dataset of an OcrJob"):
        planned(PAGES, tmp_path, other)


def test_ocr_books_are_folders_of_ids_with_their_pages_in_order(tmp_path: Path) -> None:
    store, out = MemoryStore("ocr"), MemoryStore("out")
    pages = [Page("b #1/p2", "two"), Page("a/p1", "x"), Page("b #1/p1", "one"), Page("a/sub/p1", "s"), Page("stray")]
    run(
        store,
        1,
        [*pages, Page("b #1/p3", status="failed"), Page("doc#p0002", "d2", page=1), Page("doc#p0001", "d1", page=0)],
    )
    _, items = planned(BOOKS, tmp_path, store, out)
    assert [(item.id, item.failure and item.failure.error_class) for item in items] == [
        ("a", None),
        ("a/sub", None),
        ("b #1", None),
        ("doc", None),
        ("stray", "RowUnusable"),
    ]
    assert items[2].input["table"] == "memory://out/plan/x/books.parquet"
    book = planned_book(items[2], lambda _: out)
    assert [(page.name, page.uri, page.version) for page in book.pages] == [
        ("p1", "s3://scans/b #1/p1.png", "v1"),
        ("p2", "s3://scans/b #1/p2.png", "v1"),
        ("p3", "s3://scans/b #1/p3.png", "v1"),
    ]
    assert [read_text(page, LocalFetcher()).plain for page in book.pages] == ["one", "two", ""]
    assert book.pages[2].failure and book.pages[2].failure.error_class == "RowUnusable"
    assert [page.page for page in planned_book(items[3], lambda _: out).pages] == [0, 1]
    out.put("plan/x/books.parquet", b"other")
    with pytest.raises(SourceChanged):
        planned_book(items[2], lambda _: out)


def test_ocr_texts_as_reference_json_are_what_the_books_reader_makes_of_the_page(tmp_path: Path) -> None:
    store = MemoryStore("ocr")
    run(store, 1, [Page("b/1", "ワン")])
    request = OcrOutputRequest(uri="memory://ocr", as_reference_json=True)
    _, items = planned(request, tmp_path, store)
    text = items[0].input["text"]
    assert isinstance(text, str) and "\\u30ef" in text
    value = json.loads(text)
    assert value["full_text"] == "ワン"
    assert value["text_regions"][0]["bbox"] == [1, 2, 4, 6]
    assert page_text(json.dumps({"OCRResult": value}).encode()).json_text == text


def test_ocr_books_over_many_row_groups_are_read_by_range(tmp_path: Path) -> None:
    store, out = MemoryStore("ocr"), MemoryStore("out")
    pages = [Page(f"book{number % 3}/p{number:04d}", f"{number}") for number in range(1600)]
    run(store, 1, pages, part_rows=500)
    _, items = planned(BOOKS, tmp_path, store, out)
    for number, item in enumerate(items):
        texts = [page.text and page.text.plain for page in planned_book(item, lambda _: out).pages]
        assert texts == [str(page) for page in range(number, 1600, 3)]
