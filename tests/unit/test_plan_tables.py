"""The plan's tables: what goes in comes out, by ranges, and damage is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pagemill_core.errors import IntegrityError, ObjectNotFoundError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.work.records import PlanPart
from pagemill_worker.items import ItemFailure, PlannedItem
from pagemill_worker.plan import tables
from pagemill_worker.plan.reader import ShardReader
from pagemill_worker.plan.rows import Candidates, encode_columns
from pagemill_worker.plan.shards import CutRule, ShardCutter
from pagemill_worker.plan.tables import TableWriter


class CountingStore(MemoryStore):
    """Notes each range that is asked for."""

    def __init__(self) -> None:
        super().__init__("out")
        self.ranges: list[tuple[str, int]] = []

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
        data = super().get_range(key, start, length, if_match=if_match)
        self.ranges.append((key, len(data)))
        return data


def item(row: int) -> PlannedItem:
    return PlannedItem(row=row, id=f"vol/p{row:07d} ê", uri=f"s3://lib/{row}.png", page=row % 3 or None)


def batch_of(rows: range) -> Candidates:
    items = [item(row) for row in rows]
    nothing = [None] * len(items)
    return Candidates(
        [row + 2 for row in rows],
        [entry.id for entry in items],
        [entry.uri for entry in items],
        [entry.page for entry in items],
        [*nothing],
        [*nothing],
        [*nothing],
    )


def written(store: MemoryStore, scratch: Path, total: int, rule: CutRule, batch: int = 5000) -> list[PlanPart]:
    cutter = ShardCutter(rule)
    with TableWriter(store, "plan/x/", scratch) as writer:
        for start in range(0, total, batch):
            rows = range(start, min(total, start + batch))
            writer.add(batch_of(rows), cutter.assign(len(rows)))
        return writer.finish()


def test_tables_rows_come_back_with_everything(tmp_path: Path) -> None:
    store = MemoryStore("out")
    columns = {"né": "日本", "n": 2**70, "f": 0.1, "t": True, "none": None, "half": "\ud800"}
    batch = Candidates(
        [2, 3, 4],
        ["a", "\ud800 é", "c"],
        ["s3://b/a", "/x\udcff", ""],
        [None, 0, 12],
        [None, 2**40, 0],
        [None, "v", ""],
        [encode_columns(columns), None, None],
        {1: ItemFailure("UnsafeId", "half \udc80"), 2: ItemFailure("ImageMissing", "x")},
    )
    with TableWriter(store, "plan/x/", tmp_path) as writer:
        writer.add(batch, np.array([0, 0, 1]))
        parts = writer.finish()
    reader = ShardReader(store, parts)
    assert reader.items(0) == [
        PlannedItem(0, "a", "s3://b/a", columns=columns),
        PlannedItem(1, "\\ud800 é", "/x\\udcff", 0, 2**40, "v", {}, ItemFailure("UnsafeId", "half \\udc80")),
    ]
    assert reader.items(1) == [PlannedItem(2, "c", "", 12, 0, "", {}, ItemFailure("ImageMissing", "x"))]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("total", "rule"),
    [
        (0, CutRule(5)),
        (1, CutRule(5)),
        (5000, CutRule(1)),
        (30_000, CutRule(7, ramp=True)),
        (90_000, CutRule(70_000)),
        (20_000, CutRule(500)),
    ],
    ids=str,
)
def test_tables_any_cut_reads_back_every_shard(total: int, rule: CutRule, tmp_path: Path) -> None:
    store = MemoryStore("out")
    parts = written(store, tmp_path, total, rule)
    assert sum(part.rows for part in parts) == total
    reader = ShardReader(store, parts)
    shards: dict[int, list[PlannedItem]] = {}
    for shard, entry in reader.all_items():
        shards.setdefault(shard, []).append(entry)
    assert [entry.row for entries in shards.values() for entry in entries] == list(range(total))
    sizes = {shard: size for index in range(len(parts)) for shard, size in reader.shard_sizes(index).items()}
    assert sizes == {shard: len(entries) for shard, entries in shards.items()}
    assert reader.shard_count == len(shards)
    for shard in [*range(0, len(shards), max(1, len(shards) // 50)), *([len(shards) - 1] if shards else [])]:
        assert reader.items(shard) == shards[shard]
    reader.verify()


def test_tables_parts_are_the_segments_of_the_protocol(tmp_path: Path) -> None:
    parts = written(MemoryStore("out"), tmp_path, 25_000, CutRule(10))
    assert [(part.key, part.first_shard, part.shards, part.first_row, part.rows) for part in parts] == [
        ("plan/x/shards-00000.parquet", 0, 1000, 0, 10_000),
        ("plan/x/shards-00001.parquet", 1000, 1000, 10_000, 10_000),
        ("plan/x/shards-00002.parquet", 2000, 500, 20_000, 5_000),
    ]


def test_tables_reading_neighbouring_shards_costs_few_and_small_requests(tmp_path: Path) -> None:
    store = CountingStore()
    parts = written(store, tmp_path, 200_000, CutRule(100))
    reader = ShardReader(store, parts)
    for shard in range(500, 540):
        reader.items(shard)
    assert len(store.ranges) <= 8, "40 shards of 100 rows lie in one or two row groups"
    assert sum(length for _, length in store.ranges) < parts[0].size / 3


def test_tables_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (written(MemoryStore("out"), tmp_path, 9_000, CutRule(50), batch) for batch in (9_000, 1_000))
    again = written(MemoryStore("out"), tmp_path, 9_000, CutRule(50), 9_000)
    assert first == again
    assert [part.rows for part in first] == [part.rows for part in second]


def test_tables_writer_that_fails_leaves_no_file(tmp_path: Path) -> None:
    store = MemoryStore("out")
    with pytest.raises(RuntimeError, match="stop"), TableWriter(store, "plan/x/", tmp_path) as writer:
        writer.add(batch_of(range(10)), np.zeros(10, np.int64))
        raise RuntimeError("stop")
    assert not list(tmp_path.iterdir())
    assert not list(store.list(""))


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.99])
def test_tables_damaged_part_is_seen_by_reading_and_by_verify(place: float, tmp_path: Path) -> None:
    store = MemoryStore("out")
    part = written(store, tmp_path, 3_000, CutRule(100))[0]
    data = bytearray(store.get(part.key).data)
    at = max(4, int(place * (len(data) - 8)))
    data[at] ^= 0x10
    store.put(part.key, bytes(data))
    with pytest.raises(IntegrityError):
        ShardReader(store, [part]).verify()
    if place < 0.7:
        with pytest.raises(IntegrityError):
            list(ShardReader(store, [part]).all_items())


def test_tables_cut_short_or_swapped_are_refused(tmp_path: Path) -> None:
    store = MemoryStore("out")
    part, other = (written(store, tmp_path, total, CutRule(100))[0] for total in (3_000, 2_000))
    with pytest.raises(IntegrityError, match="other rows"):
        ShardReader(store, [other.model_copy(update={"rows": 1})]).items(0)
    store.put(part.key, store.get(part.key).data[:-50])
    with pytest.raises(IntegrityError):
        ShardReader(store, [part]).items(0)


def test_tables_shard_outside_the_plan_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    reader = ShardReader(MemoryStore("out"), written(MemoryStore("out"), tmp_path, 10, CutRule(5)))
    for shard in (-1, 2):
        with pytest.raises(ValueError, match="no shard"):
            reader.items(shard)
    with pytest.raises(ObjectNotFoundError):
        reader.items(0)


def test_tables_groups_hold_whole_shards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tables, "GROUP_ROWS", 100)
    monkeypatch.setattr(tables, "MAX_GROUP_ROWS", 1_000)
    store = MemoryStore("out")
    parts = written(store, tmp_path, 4_000, CutRule(30), 333)
    reader = ShardReader(store, parts)
    ranges = reader._part(0)._ranges
    assert all(last < first for (_, last), (first, _) in zip(ranges, ranges[1:], strict=False))
    assert len(reader.items(77)) == 30
