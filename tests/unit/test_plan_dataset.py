"""Data sets as items: rows of Parquet and samples of tars, in order, each accounted for."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pagemill_core.errors import SourceError
from pagemill_core.storage.memory import MemoryStore
from pagemill_worker.items import PlannedItem
from pagemill_worker.plan import dataset
from pagemill_worker.plan.planner import PlanResult, PlanTools, plan_source
from pagemill_worker.plan.reader import ShardReader
from pagemill_worker.plan.request import DatasetRequest, KeyRules, PlanRequest, SourceRequest
from pagemill_worker.plan.tar_members import Member, TarMembers

MEMORY = DatasetRequest(uri="memory://lib/set")
Members = list[tuple[str, bytes]]


def planned(
    request: SourceRequest, scratch: Path, store: MemoryStore, max_items: int | None = None
) -> tuple[PlanResult, list[PlannedItem]]:
    scratch.mkdir(exist_ok=True)
    tools = PlanTools(
        open_store=lambda _: store,
        count_pages=lambda uri: pytest.fail(f"counts the pages of {uri}"),
        store=store,
        prefix="plan/x/",
        scratch=scratch,
    )
    wanted = PlanRequest(source=request, keys=KeyRules(are_keys=False), max_items=max_items)
    result = plan_source(wanted, tools)
    return result, [item for _, item in ShardReader(store, result.parts).all_items()]


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, **options)
    return sink.getvalue()


def tar(members: Members, form: int = tarfile.PAX_FORMAT) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def failures(items: list[PlannedItem]) -> list[str | None]:
    return [item.failure.error_class if item.failure else None for item in items]


def test_dataset_parquet_rows_keep_order_types_and_nulls(tmp_path: Path) -> None:
    store = MemoryStore("lib")
    columns = {
        "url": ["http://a/1.jpg?sig=x%20y", "s3://b/ê #1.tif", "pics/3.pdf"],
        "key": ["007", "007", "日/本"],
        "caption": ["one", None, ""],
        "width": pa.array([640, None, -1], pa.int32()),
        "score": pa.array([0.5, None, 1.0], pa.float32()),
        "ok": [True, None, False],
        "tags": [["a"], None, []],
    }
    store.put("set/00000.parquet", parquet(columns))
    result, items = planned(MEMORY, tmp_path, store)
    assert [item.id for item in items] == [f"00000#{row:09d}" for row in range(3)]
    assert [item.uri for item in items] == [columns["url"][0], columns["url"][1], "memory://lib/set/pics/3.pdf"]
    assert [item.page for item in items] == [None] * 3
    assert items[0].columns == {
        "key": "007",
        "caption": "one",
        "width": 640,
        "score": 0.5,
        "ok": True,
        "tags": '["a"]',
    }
    assert set(items[1].columns.values()) == {"007", None}
    assert type(items[2].columns["width"]) is int
    want = {"key": "string", "caption": "string", "width": "int64", "score": "double", "ok": "bool", "tags": "string"}
    assert result.columns == want
    assert result.failed == 0


def test_dataset_rows_without_success_or_url_are_not_fetched(tmp_path: Path) -> None:
    store = MemoryStore("lib")
    columns = {
        "url": ["http://a/1", "http://a/2", None, "", "ftp://a/5"],
        "status": ["success", "failed_to_download", None, None, None],
        "error_message": [None, "HTTP Error 404", None, None, None],
    }
    store.put("set/a.parquet", parquet(columns))
    _, items = planned(MEMORY, tmp_path, store)
    assert failures(items) == [None, "RowUnusable", "RowUnusable", "RowUnusable", "FetchFailed"]
    assert items[1].failure and "failed_to_download: HTTP Error 404" in items[1].failure.message
    assert items[1].columns["status"] == "failed_to_download"


def test_dataset_shards_nested_empty_poor_and_damaged_are_all_accounted_for(tmp_path: Path) -> None:
    store = MemoryStore("lib")
    good = parquet({"url": ["http://a/1"], "n": [1]})
    store.put("set/b/00001.parquet", good)
    store.put("set/00000.parquet", parquet({"url": pa.array([], pa.string())}))
    store.put("set/00002.parquet", parquet({"caption": ["x", "y"]}))
    store.put("set/00003.parquet", good[: len(good) // 2])
    store.put("set/00004.parquet", b"")
    store.put("set/00005.parquet", parquet({"url": ["http://a/5"], "n": [0.5]}))
    store.put("set/.hidden/1.parquet", good)
    store.put("set/readme.md", b"x")
    result, items = planned(MEMORY, tmp_path, store)
    want = [
        ("00002#000000000", "RowUnusable"),
        ("00002#000000001", "RowUnusable"),
        ("00003.parquet", "PartUnreadable"),
        ("00004.parquet", "PartUnreadable"),
        ("00005#000000000", None),
        ("b/00001#000000000", None),
    ]
    assert [(item.id, item.failure and item.failure.error_class) for item in items] == want
    assert result.columns == {"caption": "string", "n": "double"}


def test_dataset_parquet_damaged_in_its_middle_keeps_the_rows_before(tmp_path: Path) -> None:
    store = MemoryStore("lib")
    data = bytearray(parquet({"url": [f"http://a/{n}" for n in range(20_000)]}, row_group_size=10_000))
    offset = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(1).column(0).file_offset
    start = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(1).column(0).dictionary_page_offset or offset
    data[start : start + 64] = b"\xff" * 64
    store.put("set/0.parquet", bytes(data))
    store.put("set/1.parquet", parquet({"url": ["http://a/x"]}))
    _, items = planned(MEMORY, tmp_path, store)
    assert failures(items)[:8192] == [None] * 8192
    assert failures(items)[-2:] == ["PartUnreadable", None]
    assert items[-1].uri == "http://a/x"


def test_dataset_own_output_inside_the_input_is_not_read_again(tmp_path: Path) -> None:
    root = tmp_path / "set"
    names = ["0.parquet", "embeddings.parquet", "failures.parquet/part-0.parquet", "dataset/run=00000001/p.parquet"]
    for name in [*names, "out/embeddings.parquet", ".pagemill/x.parquet"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(parquet({"url": [name]}))
    prefixes = ("dataset", "embeddings.parquet", "failures.parquet")
    same = DatasetRequest(uri=str(root), own_output_uri=f"{root}/", own_prefixes=prefixes)
    _, items = planned(same, tmp_path / "scratch", MemoryStore("out"))
    assert [item.id for item in items] == ["0#000000000", "out/embeddings#000000000"]
    inside = DatasetRequest(uri=str(root), own_output_uri=str(root / "out"), own_prefixes=prefixes)
    _, items = planned(inside, tmp_path / "scratch", MemoryStore("out"))
    assert [item.id.partition("#")[0] for item in items] == [
        "0",
        "dataset/run=00000001/p",
        "embeddings",
        "failures.parquet/part-0",
    ]


def test_dataset_relative_urls_start_at_their_shard_and_s3_urls_stay(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    urls = ["img/1.png", "/abs/2.png", "s3://bucket/3.png", "HTTPS://h/4.png"]
    (tmp_path / "set" / "0.parquet").write_bytes(parquet({"url": urls}))
    _, items = planned(DatasetRequest(uri=str(tmp_path / "set")), tmp_path / "scratch", MemoryStore("out"))
    want = [str(tmp_path / "set/img/1.png"), "/abs/2.png", "s3://bucket/3.png", "https://h/4.png"]
    assert [item.uri for item in items] == want


def test_dataset_max_items_counts_rows_whatever_they_hold(tmp_path: Path) -> None:
    store = MemoryStore("lib")
    store.put("set/0.parquet", parquet({"url": ["http://a/1", None, "http://a/3", "http://a/4"]}))
    result, items = planned(MEMORY, tmp_path, store, max_items=3)
    assert (result.items, failures(items)) == (3, [None, "RowUnusable", None])


@pytest.mark.parametrize("kind", ["binary", "struct"])
def test_dataset_parquet_with_bytes_points_at_its_cells(tmp_path: Path, kind: str) -> None:
    store = MemoryStore("lib")
    cells: list[Any] = [b"\xff\xd8" + bytes(100), None]
    if kind == "struct":
        cells = [{"bytes": cell, "path": "x.jpg"} for cell in cells]
    name = "image" if kind == "struct" else "jpg"
    store.put("set/0.parquet", parquet({"url": ["http://a/1", "http://a/2"], name: cells, "key": ["1", "2"]}))
    _, items = planned(MEMORY, tmp_path, store)
    info = store.head("set/0.parquet")
    column = "image.bytes" if kind == "struct" else "jpg"
    assert [dict(item.input) for item in items] == [{"column": column, "row": row} for row in range(2)]
    assert {item.version for item in items} == {info and info.token}
    assert items[0].columns == {"url": "http://a/1", "key": "1"}


SAMPLES: Members = [
    ("./__meta__/x.json", b"{"),
    ("a/001.jpg", b"J" * 300_000),
    ("a/001.txt", b"caption one"),
    ("a/001.json", b'{"key": "001", "width": 5, "tags": ["x"], "caption": "json wins"}'),
    ("._a/001.jpg", b"x"),
    ("a/002.seg.png", b"S"),
    ("a/002.PNG", b"P" * 10),
    ("003.url", b"http://h/3.jpg\n"),
    ("003.cls", b"7"),
    ("004.txt", b"no picture"),
    ("005.jpg", b""),
    ("006.json", b"{"),
    ("007.jpg", b"J"),
    ("007.json", b'{"status": "failed_to_resize", "error_message": "too small"}'),
    ("日本 %23#é.webp", b"W" * 1000),
]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_dataset_tar_samples_become_items_with_ranges(tmp_path: Path, form: int) -> None:
    store = MemoryStore("lib")
    long = ("deep/" * 40 + "name.jpg", b"L" * 7)
    data = tar([*SAMPLES, long], form)
    store.put("set/00000.tar", data)
    result, items = planned(MEMORY, tmp_path, store)
    assert failures(items) == [None, None, None, "RowUnusable", None, "RowUnusable", "RowUnusable", None, None]
    assert items[0].columns == {"key": "001", "caption": "json wins", "width": 5, "tags": '["x"]'}
    assert result.columns["width"] == "int64"
    assert (items[2].uri, dict(items[2].columns), dict(items[2].input)) == (
        "http://h/3.jpg",
        {"key": "003", "cls": "7"},
        {},
    )
    for item, want in zip(
        items, [b"J" * 300_000, b"P" * 10, None, None, b"", None, b"J", b"W" * 1000, long[1]], strict=True
    ):
        if want is not None:
            start, size = item.input["offset"], item.input["size"]
            assert isinstance(start, int) and isinstance(size, int)
            assert data[start : start + size] == want
            assert (item.uri, item.size_bytes) == ("memory://lib/set/00000.tar", size)
    assert items[7].columns["key"] == "日本 %23#é"


class CountingBytes:
    """A tar in memory that remembers how much of it was read."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size_bytes = len(data)
        self.read_bytes = 0

    def read(self, start: int, length: int) -> bytes:
        found = self._data[start : start + length]
        self.read_bytes += len(found)
        return found


def test_dataset_tar_is_walked_without_reading_its_pictures() -> None:
    source = CountingBytes(tar([(f"{number}.jpg", bytes(2_000_000)) for number in range(20)]))
    assert len(list(TarMembers(source, "x.tar"))) == 20
    assert source.read_bytes < source.size_bytes / 20


def test_dataset_tar_of_any_numbers_gives_what_tarfile_gives() -> None:
    random.seed(7)
    members = [
        (f"k{n % 7}/{n:05d}.jpg", random.randbytes(random.choice([0, 1, 511, 512, 513, 9000]))) for n in range(300)
    ]
    data = tar(members)
    found = [
        (member.name, data[member.offset : member.offset + member.size_bytes])
        for member in TarMembers(CountingBytes(data), "x")
    ]
    assert found == members


def test_dataset_tar_size_in_base_256_is_read() -> None:
    data = bytearray(tar([("a.jpg", b"12345")]))
    data[124:136] = b"\x80" + (5).to_bytes(11, "big")
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    assert list(TarMembers(CountingBytes(bytes(data)), "x")) == [Member("a.jpg", 512, 5)]


Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, Damage] = {
    "cut in a member": lambda data: data[: 512 * 3 + 100],
    "no end mark": lambda data: data[: 512 * 4],
    "bad checksum": lambda data: data[: 512 * 2] + b"x" + data[512 * 2 + 1 :],
    "gzip": lambda data: b"\x1f\x8b" + data[2:],
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_dataset_tar_damaged_is_one_failed_item_after_what_was_read(tmp_path: Path, damage: Damage) -> None:
    store = MemoryStore("lib")
    data = tar([("1.jpg", b"a" * 500), ("2.jpg", b"b" * 500)], tarfile.USTAR_FORMAT)
    store.put("set/0.tar", damage(data))
    store.put("set/1.tar", data)
    _, items = planned(MEMORY, tmp_path, store)
    classes = failures(items)
    assert classes[-2:] == [None, None]
    assert classes.count("PartUnreadable") == 1
    assert items[classes.index("PartUnreadable")].id == "0.tar"


@pytest.mark.parametrize("is_cut", [False, True])
def test_dataset_table_beside_a_tar_names_its_rows(tmp_path: Path, is_cut: bool) -> None:
    store = MemoryStore("lib")
    data = tar([("000.jpg", b"zero"), ("000.json", b"{}"), ("002.jpg", b"two"), ("009.jpg", b"nine")])
    store.put("set/00000.tar", data[: 512 * 4] if is_cut else data)
    table = {
        "key": ["002", "001", "000", "003"],
        "url": [f"http://a/{n}" for n in (2, 1, 0, 3)],
        "status": ["success", "failed_to_download", "success", "success"],
        "width": [2, 1, 0, 3],
    }
    store.put("set/00000.parquet", parquet(table))
    result, items = planned(MEMORY, tmp_path, store)
    assert [item.columns["width"] for item in items[:4]] == [2, 1, 0, 3]
    if is_cut:
        assert failures(items) == ["PartUnreadable", "RowUnusable", None, "PartUnreadable"]
        return
    assert failures(items) == [None, "RowUnusable", None, "RowUnusable", None]
    assert items[0].input["name"] == "002.jpg"
    assert items[4].columns == {"key": "009"}
    assert items[0].columns["url"] == "http://a/2"
    assert result.columns["url"] == "string"


def test_dataset_of_many_rows_is_planned_fast_enough(tmp_path: Path) -> None:
    store = MemoryStore("lib")
    count = 20_000
    columns = {"url": [f"http://a/{n}.jpg" for n in range(count)], "key": [f"{n:09d}" for n in range(count)]}
    store.put("set/0.parquet", parquet({**columns, "caption": ["a caption"] * count}))
    result, _ = planned(MEMORY, tmp_path, store)
    assert result.items == count


def test_dataset_tar_of_json_that_is_no_object_fails_that_sample_alone(tmp_path: Path) -> None:
    store = MemoryStore("lib")
    store.put("set/0.tar", tar([("1.jpg", b"a"), ("1.json", json.dumps([1]).encode()), ("2.jpg", b"b")]))
    _, items = planned(MEMORY, tmp_path, store)
    assert failures(items) == ["RowUnusable", None]


@pytest.mark.parametrize("ahead", [1, 2, 20_000])
def test_dataset_of_many_tars_keeps_their_order_and_columns_whatever_is_read_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    monkeypatch.setattr(dataset, "ROWS_AHEAD", ahead)
    store = MemoryStore("lib")
    for number in range(30):
        members = [(f"{number}-{place}.jpg", bytes(place)) for place in range(3)]
        store.put(f"set/{number:05d}.tar", tar([*members, (f"{number}-2.json", b'{"c%d": %d}' % (number, number))]))
    result, items = planned(MEMORY, tmp_path, store)
    assert [item.columns["key"] for item in items] == [
        f"{number}-{place}" for number in range(30) for place in range(3)
    ]
    assert list(result.columns) == ["key", *(f"c{number}" for number in range(30))]
    cut, few = planned(MEMORY, tmp_path, store, max_items=4)
    assert (cut.items, [item.id for item in few]) == (4, [item.id for item in items[:4]])


def test_dataset_tars_compressed_as_a_whole_are_passed_over_with_a_warning(tmp_path: Path) -> None:
    store = MemoryStore("lib")
    store.put("set/0.tar.gz", b"x")
    store.put("set/1.TGZ", b"x")
    store.put("set/2.tar", tar([("1.jpg", b"a")]))
    result, items = planned(MEMORY, tmp_path, store)
    assert [item.id for item in items] == ["2#000000000"]
    want = "2 tars are compressed as a whole and were passed over; unpack them (first: 0.tar.gz)"
    assert result.warnings == (want,)


def test_dataset_captions_are_texts_of_their_items_when_asked_for(tmp_path: Path) -> None:
    store = MemoryStore("lib")
    store.put("set/0.parquet", parquet({"url": ["http://a/1", "http://a/2", None], "caption": ["a cat", None, "x"]}))
    store.put("set/1.tar", tar([("1.jpg", b"a"), ("1.txt", b"a dog")]))
    _, items = planned(DatasetRequest(uri="memory://lib/set", with_captions=True), tmp_path, store)
    assert failures(items) == [None, "RowUnusable", "RowUnusable", None]
    assert [item.input.get("text") for item in items] == ["a cat", None, None, "a dog"]
    assert items[3].input["size"] == 1
    assert items[1].failure and "no caption" in items[1].failure.message


@pytest.mark.parametrize("seed", range(8))
def test_dataset_tar_with_any_damage_ends_with_an_error_or_its_members(seed: int) -> None:
    random.seed(seed)
    whole = tar([("a/1.jpg", bytes(700)), ("x" * 300 + ".jpg", bytes(10)), ("2.json", b"{}")])
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(random.randint(1, 4)):
            at = random.randrange(len(data))
            data[at : at + random.randint(1, 12)] = random.choice([b"-1", b"\xff" * 4, b"9", b"size=-9\n", bytes(3)])
        if random.random() < 0.5:
            for header in range(0, len(data) - 512, 512):  # damage that its checksum vouches for
                data[header + 148 : header + 156] = b" " * 8
                data[header + 148 : header + 156] = f"{sum(data[header : header + 512]):06o}\0 ".encode()
        source = CountingBytes(bytes(data))
        try:
            found = list(TarMembers(source, "x"))
        except SourceError:
            continue
        assert all(0 <= one.offset <= one.offset + one.size_bytes <= source.size_bytes for one in found)
        assert len(found) <= len(data) // 512
