"""Books, data sets, texts and tensors give the same items from every kind of store, and the same bytes when read."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pagemill_core.clock import SystemClock
from pagemill_core.storage.folder import FolderStore
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.storage.store import ObjectStore
from pagemill_core.testing.seaweed import SeaweedServer
from pagemill_worker.embed.books import list_book, planned_book, read_text
from pagemill_worker.fetch.http import HttpFetcher, HttpPolicy
from pagemill_worker.fetch.items import fetch_input
from pagemill_worker.fetch.local import LocalFetcher
from pagemill_worker.fetch.objects import ObjectFetcher
from pagemill_worker.fetch.recent import RecentFetcher
from pagemill_worker.fetch.source import SourceFetcher
from pagemill_worker.items import PlannedItem
from pagemill_worker.plan.planner import PlanTools, plan_source
from pagemill_worker.plan.reader import ShardReader
from pagemill_worker.plan.request import (
    BooksRequest,
    DatasetRequest,
    KeyRules,
    PlanRequest,
    SourceRequest,
    TensorsRequest,
    TextsRequest,
)

BOOKS = [f"Vol. {number} #1, 50% ê…" for number in range(10)]
KINDS = ("folder", "s3")


def parquet(columns: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def tar() -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for number in range(30):
            for suffix, data in (("jpg", bytes([number]) * 5_000), ("txt", f"caption {number}".encode())):
                info = tarfile.TarInfo(f"{number:05d}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def partition(rows: int) -> bytes:
    sink = io.BytesIO()
    torch.save((torch.zeros(rows, 3), torch.zeros(rows)), sink)
    return sink.getvalue()


LIBRARY: dict[str, bytes] = {
    **{f"books/{name}/page_{page}.jpg": name.encode() + bytes([page]) for name in BOOKS for page in range(3)},
    **{f"ocr/{name}/page_1.json": json.dumps({"OCRResult": {"full_text": name}}).encode() for name in BOOKS},
    "list.json": json.dumps([{"hash_code": name} for name in [*BOOKS, "gone", "../out"]]).encode(),
    "set/00000.tar": tar(),
    "set/00001.parquet": parquet({"url": ["http://h/1.jpg", None], "key": ["1", "2"], "status": ["success", "x"]}),
    "set/a/00002.parquet": parquet({"jpg": [b"one", b"two"], "key": ["1", "2"]}),
    "set/a/00003.parquet": b"damaged",
    "texts/a.jsonl": b'{"text": "eins"}\n{"text": null}\n',
    "texts/b.parquet": parquet({"text": ["x" * 70_000, ""]}),
    "parts/1.pt": partition(9),
    "parts/10.pt": partition(2),
    "parts/2.pt": partition(5),
}


class Place:
    """The library in a store of one kind, as the planner and a worker meet it."""

    def __init__(self, kind: str, folder: Path, server: SeaweedServer) -> None:
        self.store: ObjectStore
        if kind == "folder":
            self.store, self.uri = FolderStore(folder), str(folder)
        else:
            bucket = server.fresh_bucket()
            self.store, self.uri = server.store(bucket), f"s3://{bucket}"
        for key, data in LIBRARY.items():
            self.store.put(key, data)
        inner = SourceFetcher(
            local=LocalFetcher(),
            objects=ObjectFetcher(lambda _: self.store),
            http=HttpFetcher(HttpPolicy(), SystemClock()),
        )
        self.fetcher = RecentFetcher(inner, keep_bytes=0)

    def open(self, _: str) -> ObjectStore:
        return self.store

    def planned(self, request: SourceRequest, scratch: Path) -> list[PlannedItem]:
        scratch.mkdir(exist_ok=True)
        out = MemoryStore("out")
        tools = PlanTools(
            open_store=self.open,
            count_pages=lambda uri: pytest.fail(f"counts the pages of {uri}"),
            store=out,
            prefix="plan/",
            scratch=scratch,
        )
        keys = (
            KeyRules(prefix="records", suffixes=(".pt",))
            if isinstance(request, BooksRequest)
            else KeyRules(are_keys=False)
        )
        result = plan_source(PlanRequest(source=request, keys=keys), tools)
        return [item for _, item in ShardReader(out, result.parts).all_items()]


@pytest.fixture(scope="module")
def places(s3_server: SeaweedServer, tmp_path_factory: pytest.TempPathFactory) -> list[Place]:
    return [Place(kind, tmp_path_factory.mktemp("library"), s3_server) for kind in KINDS]


REQUESTS: dict[str, Callable[[str], SourceRequest]] = {
    "books": lambda uri: BooksRequest(uri=f"{uri}/books", annotations=f"{uri}/list.json", text_uri=f"{uri}/ocr"),
    "all books": lambda uri: BooksRequest(uri=f"{uri}/books/"),
    "dataset": lambda uri: DatasetRequest(uri=f"{uri}/set/"),
    "texts": lambda uri: TextsRequest(uri=f"{uri}/texts"),
    "tensors": lambda uri: TensorsRequest(uri=f"{uri}/parts", rows_per_item=4, world_size=2),
}


@pytest.mark.s3
@pytest.mark.parametrize("name", REQUESTS)
def test_plan_of_every_source_is_the_same_from_every_store(places: list[Place], tmp_path: Path, name: str) -> None:
    found = [
        [
            (
                item.id,
                item.uri.removeprefix(place.uri),
                item.size_bytes,
                item.failure and item.failure.error_class,
                dict(item.columns),
                {name: str(value).removeprefix(place.uri) for name, value in item.input.items()},
            )
            for item in place.planned(REQUESTS[name](place.uri), tmp_path / "scratch")
        ]
        for place in places
    ]
    assert found[0] == found[1]
    assert len(found[0]) == {"books": 12, "all books": 10, "dataset": 35, "texts": 4, "tensors": 6}[name]


@pytest.mark.s3
def test_plan_items_give_the_same_bytes_from_every_store(places: list[Place], tmp_path: Path) -> None:
    want = [bytes([number]) * 5_000 for number in range(30)] + [b"one", b"two"]
    texts = [b"eins", b"x" * 70_000, b""]
    for place in places:
        for request, wanted in ((REQUESTS["dataset"], want), (REQUESTS["texts"], texts)):
            items = place.planned(request(place.uri), tmp_path / "scratch")
            readable = [item for item in items if item.failure is None and not item.uri.startswith("http")]
            fetched = [fetch_input(place.fetcher, item, max_bytes=1 << 20) for item in readable]
            assert [one and one.data for one in fetched] == wanted


@pytest.mark.s3
def test_plan_books_are_read_as_planned_from_every_store(places: list[Place], tmp_path: Path) -> None:
    for place in places:
        for item in place.planned(REQUESTS["books"](place.uri), tmp_path / "scratch")[:10]:
            book = planned_book(item, place.open)
            read = [
                place.fetcher.fetch(page.uri, expected_version=page.version, max_bytes=100).data for page in book.pages
            ]
            assert read == [item.id.encode() + bytes([page]) for page in range(3)]
            assert [read_text(page, place.fetcher).plain for page in book.pages] == ["", item.id, ""]


@pytest.mark.s3
def test_plan_book_of_more_pages_than_one_listing_holds_is_whole(s3_server: SeaweedServer) -> None:
    store = s3_server.fresh_store()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda page: store.put(f"book/p{page:05d}.jpg", b"x"), range(1_050)))
    book = list_book("s3://any/book", order="codePoint", open_store=lambda _: store)
    assert [page.name for page in book.pages] == [f"p{page:05d}.jpg" for page in range(1_050)]
