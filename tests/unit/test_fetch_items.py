"""The bytes of items that are a part of a file: ranges, members of tars, cells of tables; always of one version."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pagemill_core.clock import SystemClock
from pagemill_core.errors import FetchFailed, ImageMissing, ImageTooLarge, IntegrityError, RowUnusable, SourceChanged
from pagemill_core.storage.memory import MemoryStore
from pagemill_worker.fetch import cells
from pagemill_worker.fetch.fetched import Span, local_version
from pagemill_worker.fetch.http import HttpFetcher, HttpPolicy
from pagemill_worker.fetch.items import fetch_input, fetch_picture
from pagemill_worker.fetch.local import LocalFetcher
from pagemill_worker.fetch.objects import ObjectFetcher
from pagemill_worker.fetch.recent import RecentFetcher
from pagemill_worker.fetch.source import SourceFetcher
from pagemill_worker.items import PlannedItem, Scalar
from pagemill_worker.plan.tar_members import TarMembers

ROWS = 40
PICTURES = [bytes([row]) * (row * 100) for row in range(ROWS)]


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__("lib")
        self.read_bytes = 0

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
        data = super().get_range(key, start, length, if_match=if_match)
        self.read_bytes += len(data)
        return data


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def fetcher(store: CountingStore) -> RecentFetcher:
    http = HttpFetcher(HttpPolicy(), SystemClock())
    inner = SourceFetcher(local=LocalFetcher(), objects=ObjectFetcher(lambda _: store), http=http)
    return RecentFetcher(inner, keep_bytes=0)


def item(uri: str, version: str | None, **given: Scalar) -> PlannedItem:
    return PlannedItem(0, "id", uri, version=version, input=given)


def table(**columns: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, row_group_size=15)
    return sink.getvalue()


def data_of(fetcher: RecentFetcher, wanted: PlannedItem, max_bytes: int = 1 << 20) -> bytes:
    fetched = fetch_input(fetcher, wanted, max_bytes=max_bytes)
    assert fetched is not None
    assert fetched.version == wanted.version
    return fetched.data


def test_fetch_tar_member_reads_its_range_alone(fetcher: RecentFetcher, store: CountingStore) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, data in (("a.jpg", b"a" * 700), ("b.jpg", b"b" * 900_000), ("c.jpg", b"")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

    class Whole:
        size_bytes = len(sink.getvalue())

        def read(self, start: int, length: int) -> bytes:
            return sink.getvalue()[start : start + length]

    token = store.put("x.tar", sink.getvalue())
    members = list(TarMembers(Whole(), "x"))
    got = [
        data_of(fetcher, item("s3://lib/x.tar", token, offset=one.offset, size=one.size_bytes, name=one.name))
        for one in members
    ]
    assert got == [b"a" * 700, b"b" * 900_000, b""]
    assert store.read_bytes == 900_700
    big = item("s3://lib/x.tar", token, offset=members[1].offset, size=members[1].size_bytes, name="b.jpg")
    with pytest.raises(ImageTooLarge, match=r"b\.jpg"):
        fetch_input(fetcher, big, max_bytes=1000)


@pytest.mark.parametrize("place", ["store", "folder"])
def test_fetch_part_of_a_file_that_changed_is_refused(
    fetcher: RecentFetcher, store: CountingStore, tmp_path: Path, place: str
) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"0123456789")
    uri = str(path) if place == "folder" else "s3://lib/x.tar"
    version = local_version(path.stat()) if place == "folder" else store.put("x.tar", b"0123456789")
    assert data_of(fetcher, item(uri, version, offset=2, size=3)) == b"234"
    path.write_bytes(b"abc")
    store.put("x.tar", b"abc")
    with pytest.raises(SourceChanged):
        fetch_input(fetcher, item(uri, version, offset=2, size=3), max_bytes=100)
    with pytest.raises(SourceChanged):
        fetch_input(fetcher, item(uri, version, column="jpg", row=0), max_bytes=100)
    os.remove(path)
    store.delete("x.tar")
    with pytest.raises((ImageMissing, SourceChanged)):
        fetch_input(fetcher, item(uri, version, offset=2, size=3), max_bytes=100)


@pytest.mark.parametrize("order", ["forward", "backward", "one in three"])
def test_fetch_cells_are_those_of_their_rows(fetcher: RecentFetcher, store: CountingStore, order: str) -> None:
    token = store.put("x.parquet", table(jpg=PICTURES, key=[str(row) for row in range(ROWS)]))
    rows = {"forward": range(ROWS), "backward": range(ROWS - 1, -1, -1), "one in three": range(0, ROWS, 3)}[order]
    got = [data_of(fetcher, item("s3://lib/x.parquet", token, column="jpg", row=row)) for row in rows]
    assert got == [PICTURES[row] for row in rows]


def test_fetch_cells_in_order_read_the_table_once(fetcher: RecentFetcher, store: CountingStore) -> None:
    pictures = [os.urandom(50_000) for _ in range(60)]
    body = table(jpg=pictures)
    token = store.put("x.parquet", body)
    for row, want in enumerate(pictures):
        assert data_of(fetcher, item("s3://lib/x.parquet", token, column="jpg", row=row)) == want
    assert store.read_bytes < 1.5 * len(body)


def test_fetch_cells_of_structs_texts_and_nulls(fetcher: RecentFetcher, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    image = [{"bytes": b"one", "path": "1"}, None, {"bytes": None, "path": "3"}]
    path.write_bytes(table(image=image, text=["é", None, ""]))
    version = local_version(path.stat())
    assert data_of(fetcher, item(str(path), version, column="image.bytes", row=0)) == b"one"
    assert data_of(fetcher, item(str(path), version, column="text", row=0)) == "é".encode()
    assert data_of(fetcher, item(str(path), version, column="text", row=2)) == b""
    for column, row in (("image.bytes", 1), ("image.bytes", 2), ("text", 1)):
        with pytest.raises(RowUnusable, match=f"row {row}"):
            fetch_input(fetcher, item(str(path), version, column=column, row=row), max_bytes=100)
    with pytest.raises(FetchFailed, match="row 3"):
        fetch_input(fetcher, item(str(path), version, column="text", row=3), max_bytes=100)
    with pytest.raises(ImageTooLarge):
        fetch_input(fetcher, item(str(path), version, column="image.bytes", row=0), max_bytes=2)


def test_fetch_cell_of_a_damaged_table_fails_that_item(fetcher: RecentFetcher, store: CountingStore) -> None:
    token = store.put("x.parquet", b"PAR1 not at all PAR1")
    with pytest.raises(FetchFailed, match="row 0 cannot be read"):
        fetch_input(fetcher, item("s3://lib/x.parquet", token, column="jpg", row=0), max_bytes=100)


def test_fetch_cells_keep_few_tables_open(fetcher: RecentFetcher, store: CountingStore) -> None:
    tokens = [store.put(f"{name}.parquet", table(jpg=[b"x"])) for name in range(5)]
    for name, token in enumerate(tokens):
        data_of(fetcher, item(f"s3://lib/{name}.parquet", token, column="jpg", row=0))
    assert len(fetcher.cells._tables) == cells.TABLES_KEPT


def test_fetch_input_of_texts_whole_files_and_unchanged_ones(fetcher: RecentFetcher, store: CountingStore) -> None:
    assert data_of(fetcher, item("s3://lib/t.jsonl", "v", text="é")) == "é".encode()
    assert data_of(fetcher, item("s3://lib/t.jsonl", "v", text="")) == b""
    token = store.put("a.jpg", b"abc")
    assert data_of(fetcher, item("s3://lib/a.jpg", token)) == b"abc"
    both = fetch_picture(fetcher, item("s3://lib/a.jpg", token, text="é"), max_bytes=10)
    assert both and both.data == b"abc"
    known = PlannedItem(0, "id", "s3://lib/a.jpg", earlier_version=token)
    assert fetch_input(fetcher, known, max_bytes=10) is None
    with pytest.raises(IntegrityError):
        fetch_input(fetcher, item("s3://lib/a.jpg", token, offset=-1, size=2), max_bytes=10)


def test_fetch_range_of_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FetchFailed):
        LocalFetcher().fetch_range(str(tmp_path), Span(0, 1))
    with pytest.raises(ImageMissing):
        LocalFetcher().size_of(str(tmp_path / "gone"))
