"""Books as items: which folders, which pages in which order, what is told of those that cannot be done."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pagemill_core.errors import SourceChanged, SourceError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.storage.store import ObjectInfo
from pagemill_worker.embed.books import list_book, planned_book, read_text
from pagemill_worker.fetch.fetched import Fetched, Span, missing
from pagemill_worker.items import PlannedItem
from pagemill_worker.plan import books
from pagemill_worker.plan.digests import identity_digest
from pagemill_worker.plan.known import ITEM_INDEX_SCHEMA, IndexObject, KnownItems, KnownRules
from pagemill_worker.plan.planner import PlanResult, PlanTools, plan_source
from pagemill_worker.plan.reader import ShardReader
from pagemill_worker.plan.request import BooksRequest, KeyRules, PlanRequest

KEYS = KeyRules(prefix="records", suffixes=(".pt", ".json"))
ODD = ["Vol. #1, ê (a)…", "50%", "series/part 1", "日本"]


class CountingStore(MemoryStore):
    """Counts listings, and gives them in an order that no store promises."""

    def __init__(self) -> None:
        super().__init__("lib")
        self.lists: list[str] = []

    def list(self, prefix: str, *, limit: int | None = None) -> Iterator[ObjectInfo]:
        self.lists.append(prefix)
        return iter(sorted(super().list(prefix, limit=limit), key=lambda info: info.key[::-1]))


def planned(request: BooksRequest, scratch: Path, store: MemoryStore) -> tuple[PlanResult, list[PlannedItem]]:
    scratch.mkdir(exist_ok=True)
    tools = PlanTools(
        open_store=lambda _: store,
        count_pages=lambda uri: pytest.fail(f"counts the pages of {uri}"),
        store=store,
        prefix="plan/x/",
        scratch=scratch,
    )
    result = plan_source(PlanRequest(source=request, keys=KEYS), tools)
    return result, [item for _, item in ShardReader(store, result.parts).all_items()]


def annotated(names: list[str]) -> bytes:
    return json.dumps([{"hash_code": name, "covers": [{"page_start": 0, "page_end": 0}]} for name in names]).encode()


def shelf_in_store(names: list[str], pages: int = 2) -> CountingStore:
    store = CountingStore()
    for name in names:
        for page in range(pages):
            store.put(f"books/{name}/page_{page:04d}.jpg", b"x")
            store.put(f"books/{name}/page_{page:04d}.json", b"{}")
    return store


def test_books_of_annotations_become_items_verbatim_in_their_order(tmp_path: Path) -> None:
    for name in ODD:
        (tmp_path / "books" / name).mkdir(parents=True)
        (tmp_path / "books" / name / "p1.png").write_bytes(b"x")
    (tmp_path / "list.json").write_bytes(annotated(ODD))
    request = BooksRequest(uri=str(tmp_path / "books"), annotations=str(tmp_path / "list.json"))
    result, items = planned(request, tmp_path / "scratch", MemoryStore("out"))
    assert [(item.id, item.failure) for item in items] == [(name, None) for name in ODD]
    assert [item.uri for item in items] == [str(tmp_path / "books" / name) for name in ODD]
    assert items[0].columns == {"covers": '[{"page_start": 0, "page_end": 0}]'}
    assert items[0].input == {"order": "codePoint", "ocr": "", "pages": 1}
    assert result.columns == {"covers": "string"}


def test_books_missing_empty_unsafe_and_repeated_are_told_by_name(tmp_path: Path) -> None:
    for name in ("good", "bare", "only-folders/x.jpg"):
        (tmp_path / "books" / name).mkdir(parents=True)
    (tmp_path / "books" / "good" / "a.jpg").write_bytes(b"x")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "a.jpg").write_bytes(b"x")
    names = ["good", "gone", "bare", "only-folders", "../secret", "", "good"]
    (tmp_path / "list.json").write_bytes(annotated(names))
    request = BooksRequest(uri=str(tmp_path / "books"), annotations=str(tmp_path / "list.json"))
    result, items = planned(request, tmp_path / "scratch", MemoryStore("out"))
    want = [None, "BookMissing", "BookEmpty", "BookEmpty", "UnsafeId", "UnsafeId"]
    assert [item.failure and item.failure.error_class for item in items] == want
    assert (result.items, result.repeats) == (6, 1)
    assert items[1].input == {"order": "codePoint", "ocr": "", "pages": 0}


@pytest.mark.parametrize("count", [3, 40], ids=["few", "many"])
def test_books_in_a_store_equal_however_they_are_listed(tmp_path: Path, count: int) -> None:
    names = [f"book {number}" for number in range(count)]
    store = shelf_in_store(names)
    store.put("books/no pages/readme.txt", b"x")
    store.put("list.json", annotated([*names, "no pages", "gone"]))
    request = BooksRequest(uri="memory://lib/books/", annotations="memory://lib/list.json")
    _, items = planned(request, tmp_path, store)
    assert [item.id for item in items] == [*names, "no pages", "gone"]
    classes = [item.failure and item.failure.error_class for item in items]
    assert classes == [None] * count + ["BookEmpty", "BookMissing"]
    assert store.lists == ["books/"] if count > books.FEW_BOOKS else len(store.lists) == count + 2
    alone = list_book("memory://lib/books/book 1", order="codePoint", open_store=lambda _: store)
    assert items[1].version == alone.digest
    assert items[1].size_bytes == 2


def test_books_of_a_prefix_with_far_more_objects_are_listed_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books, "LISTED_AT_ONCE", 3)
    names = [f"book {number}" for number in range(10)]
    store = shelf_in_store([*names, *(f"other {number}" for number in range(50))])
    store.put("list.json", annotated(names))
    request = BooksRequest(uri="memory://lib/books", annotations="memory://lib/list.json")
    _, items = planned(request, tmp_path, store)
    assert [item.input["pages"] for item in items] == [2] * 10
    assert len(store.lists) == 11


def test_books_texts_elsewhere_are_joined_by_folder(tmp_path: Path) -> None:
    names = [f"{number}" for number in range(12)]
    store = shelf_in_store(names)
    for name in names[:6]:
        store.put(f"ocr/{name}/page_0001_ocr.json", b"{}")
    store.put("list.json", annotated(names))
    request = BooksRequest(uri="memory://lib/books", annotations="memory://lib/list.json", text_uri="memory://lib/ocr")
    _, items = planned(request, tmp_path, store)
    book = planned_book(items[0], lambda _: store)
    assert [page.ocr_uri for page in book.pages] == [None, "memory://lib/ocr/0/page_0001_ocr.json"]
    assert [page.ocr_uri for page in planned_book(items[8], lambda _: store).pages] == [None, None]


def test_books_without_annotations_are_every_folder_with_a_page(tmp_path: Path) -> None:
    root = tmp_path / "books"
    for name in ("b/2.jpg", "b/sub/1.PNG", "a-1/x.jpeg", "a/1.jpg", ".hidden/1.jpg", "notes/x.txt", "top.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    _, local = planned(BooksRequest(uri=str(root)), tmp_path / "scratch", MemoryStore("out"))
    store = CountingStore()
    for path in root.rglob("*.*"):
        if path.is_file():
            store.put(f"books/{path.relative_to(root)}", b"x")
    _, remote = planned(BooksRequest(uri="memory://lib/books"), tmp_path / "scratch", store)
    assert [item.id for item in local] == [item.id for item in remote] == ["a", "a-1", "b", "b/sub"]
    assert len(store.lists) == 1


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ('[{"hash_code": "a"},\n {"hash": "b"}]', "entry 2 has no hash_code; it has 'hash'"),
        ('[{"hash_code": 7}]', "entry 1: hash_code is a number, not text"),
        ('["a"]', "entry 1 is a text, not an object"),
        ('{"hash_code": "a"}', "holds a JSON object, not a list"),
        ('[{"hash_code": "a"},\n', "line 2, column 1"),
        ('[\n"\udcff"]', "line 2 is not UTF-8"),
        ("[" * 100_000, "not JSON"),
    ],
    ids=["no-code", "number", "texts", "object", "cut", "not-utf8", "deep"],
)
def test_books_annotations_that_cannot_be_read_name_the_place(tmp_path: Path, text: str, want: str) -> None:
    (tmp_path / "list.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    (tmp_path / "books").mkdir()
    request = BooksRequest(uri=str(tmp_path / "books"), annotations=str(tmp_path / "list.json"))
    with pytest.raises(SourceError) as caught:
        planned(request, tmp_path / "scratch", MemoryStore("out"))
    assert want in caught.value.message
    assert caught.value.advice


PAGES = ["page_10.JPG", "page_2.jpg", "B.Jpeg", "a.PNG", "page_2.png"]
JUNK = ["._page_1.jpg", "Thumbs.db", "note.txt", "page.webp", "scan.tiff"]


def test_book_pages_are_sorted_and_junk_and_folders_left_out(tmp_path: Path) -> None:
    for name in [*PAGES, *JUNK]:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "page_2.json").write_bytes(b"{}")
    book = list_book(str(tmp_path), order="codePoint", open_store=lambda _: MemoryStore("none"))
    assert [page.name for page in book.pages] == sorted(PAGES)
    shared = [page.ocr_uri for page in book.pages if page.name.startswith("page_2")]
    assert shared == [str(tmp_path / "page_2.json")] * 2
    natural = list_book(str(tmp_path), order="natural", open_store=lambda _: MemoryStore("none"))
    assert [page.name for page in natural.pages] == ["B.Jpeg", "a.PNG", "page_2.jpg", "page_2.png", "page_10.JPG"]
    assert natural.digest != book.digest


@pytest.mark.parametrize("change", ["page", "text", "new", "gone"])
def test_planned_book_that_changed_is_refused(tmp_path: Path, change: str) -> None:
    for name in ("1.jpg", "2.jpg", "1.json"):
        (tmp_path / name).write_bytes(b"{}")

    def open_store(_: str) -> MemoryStore:
        return MemoryStore("none")

    book = list_book(str(tmp_path), order="codePoint", open_store=open_store)
    item = PlannedItem(0, "book", str(tmp_path), version=book.digest, input={"order": "codePoint", "ocr": ""})
    assert planned_book(item, open_store) == book
    if change == "gone":
        (tmp_path / "2.jpg").unlink()
    else:
        name = {"page": "1.jpg", "text": "1.json", "new": "3.jpg"}[change]
        (tmp_path / name).write_bytes(b"longer")
    with pytest.raises(SourceChanged):
        planned_book(item, open_store)


def test_book_text_that_is_gone_reads_as_missing(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"x")
    os.symlink(tmp_path / "nowhere", tmp_path / "1.json")
    book = list_book(str(tmp_path), order="codePoint", open_store=lambda _: MemoryStore("none"))

    class Gone:
        def fetch(self, uri: str, *, expected_version: str | None = None, max_bytes: int) -> Fetched:
            raise missing(uri)

        def fetch_if_changed(self, uri: str, *, earlier_version: str, max_bytes: int) -> Fetched | None:
            raise AssertionError

        def fetch_range(self, uri: str, span: Span, *, expected_version: str | None = None) -> Fetched:
            raise AssertionError

        def size_of(self, uri: str, *, expected_version: str | None = None) -> int:
            raise AssertionError

    assert read_text(book.pages[0], Gone()).state == "missing"


def test_books_annotations_behind_a_url_are_fetched(tmp_path: Path) -> None:
    (tmp_path / "books" / "a").mkdir(parents=True)
    (tmp_path / "books" / "a" / "1.png").write_bytes(b"x")
    asked: list[str] = []

    def fetch_url(uri: str) -> bytes:
        asked.append(uri)
        if "gone" in uri:
            raise missing(uri)
        return annotated(["a"])

    def rows(uri: str) -> list[str]:
        request = BooksRequest(uri=str(tmp_path / "books"), annotations=uri)
        with ThreadPoolExecutor(1) as threads:
            source = books.BookSource(request, lambda _: MemoryStore("none"), tmp_path, threads, fetch_url)
            return [name for batch in source.batches() for name in batch.ids]

    assert rows("https://host/list.json?signature=x") == ["a"]
    assert asked == ["https://host/list.json?signature=x"]
    with pytest.raises(SourceError, match="Image file not found: https://host/gone.json") as caught:
        rows("https://host/gone.json?signature=x")
    assert "signature" not in caught.value.message


def test_books_that_did_not_change_are_left_out_of_an_incremental_plan(tmp_path: Path) -> None:
    store = shelf_in_store(["a", "b", "c"])
    request = BooksRequest(uri="memory://lib/books")
    _, first = planned(request, tmp_path, store)
    index = {
        "identity": [identity_digest(item.id) for item in first],
        "id": [item.id for item in first],
        "version": [item.version for item in first],
        "fingerprint": ["f"] * 3,
        "status": ["succeeded"] * 3,
        "failed_runs": [0] * 3,
    }
    rows = pa.table(index, schema=ITEM_INDEX_SCHEMA).sort_by("identity")
    pq.write_table(rows, tmp_path / "index.parquet")
    size = (tmp_path / "index.parquet").stat().st_size
    store.put("index", (tmp_path / "index.parquet").read_bytes())
    store.put("books/b/page_0001.json", b'{"OCRResult": {}}')
    store.delete("books/c/page_0001.jpg")
    known = KnownItems.load(store, [IndexObject("index", size)], KnownRules("f"), tmp_path)
    tools = PlanTools(
        open_store=lambda _: store,
        count_pages=lambda uri: pytest.fail(f"counts the pages of {uri}"),
        store=store,
        prefix="plan/y/",
        scratch=tmp_path,
        known=known,
    )
    result = plan_source(PlanRequest(source=request, keys=KEYS), tools)
    items = [item for _, item in ShardReader(store, result.parts).all_items()]
    assert ([item.id for item in items], result.already_done) == (["b", "c"], 1)
