"""Planned items of one shard, or of a whole plan, read back from the plan's tables.

Layer: `worker.plan`, beside `tables`; for workers, finalize and verify. Reads a part's footer once, and the row groups
it needs.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pagemill_core.errors import IntegrityError
from pagemill_core.storage.store import ObjectStore
from pagemill_core.work.records import PlanPart
from pagemill_worker.items import ItemFailure, PlannedItem
from pagemill_worker.plan.rows import decode_columns
from pagemill_worker.plan.source_bytes import RangeFile
from pagemill_worker.plan.tables import PLAN_SCHEMA

PARTS_KEPT = 4
GROUPS_KEPT = 2  # a worker walks through its shards in order; neighbours share row groups
_FOOTER_BYTES = 64 << 10  # one request gets the footer of a part of up to about 100 row groups


class ShardReader:
    """Reads a plan by its parts. Not shared by threads.

    Every method raises IntegrityError when a table does not hold what the plan says, and the store's errors.
    """

    def __init__(self, store: ObjectStore, parts: Sequence[PlanPart]) -> None:
        self._store = store
        self._parts = list(parts)
        self._starts = [part.first_shard for part in parts]
        self._open: OrderedDict[int, _OpenPart] = OrderedDict()

    @property
    def shard_count(self) -> int:
        return self._parts[-1].first_shard + self._parts[-1].shards if self._parts else 0

    def items(self, shard: int) -> list[PlannedItem]:
        """The items of one shard, in plan order. Raises: ValueError when the plan has no such shard."""
        if not 0 <= shard < self.shard_count:
            raise ValueError(f"the plan has no shard {shard}")
        return self._part(bisect_right(self._starts, shard) - 1).items(shard)

    def shard_sizes(self, part_index: int) -> dict[int, int]:
        """How many items each shard of one part has; reads the shards' column alone."""
        return self._part(part_index).sizes()

    def all_items(self) -> Iterator[tuple[int, PlannedItem]]:
        """Every (shard, item) of the plan, in order, a row group in memory at once."""
        for index in range(len(self._parts)):
            yield from self._part(index).all_items()

    def verify(self) -> None:
        """Read every part whole and compare its digest with the plan's."""
        for part in self._parts:
            data = hashlib.sha256()
            for start in range(0, part.size, 8 << 20):
                data.update(self._store.get_range(part.key, start, min(8 << 20, part.size - start)))
            if data.hexdigest() != part.sha256:
                raise _broken(part.key, "its digest is not the plan's")

    def _part(self, index: int) -> _OpenPart:
        if index not in self._open:
            self._open[index] = _OpenPart(self._store, self._parts[index])
            if len(self._open) > PARTS_KEPT:
                self._open.popitem(last=False)
        self._open.move_to_end(index)
        return self._open[index]


@dataclass(slots=True)
class _TablePart:
    """A part of the plan as bytes. Its name is its attempt's own, so no other content ever stands under it."""

    store: ObjectStore
    key: str
    size_bytes: int
    footer: bytes = b""

    def read(self, start: int, length: int) -> bytes:
        footer_start = max(0, self.size_bytes - _FOOTER_BYTES)
        if start >= footer_start:
            self.footer = self.footer or self.store.get_range(self.key, footer_start, _FOOTER_BYTES)
            return self.footer[start - footer_start : start - footer_start + length]
        return self.store.get_range(self.key, start, length)


class _OpenPart:
    """A part whose footer has been read."""

    def __init__(self, store: ObjectStore, part: PlanPart) -> None:
        self._part = part
        source = _TablePart(store, part.key, part.size)
        try:
            self._file = pq.ParquetFile(RangeFile(source), page_checksum_verification=True, pre_buffer=True)
        except (pa.ArrowException, OSError) as error:
            raise _broken(part.key, str(error)) from error
        metadata = self._file.metadata
        if metadata.num_rows != part.rows or self._file.schema_arrow.names != PLAN_SCHEMA.names:
            raise _broken(part.key, "it has other rows or columns than the plan says")
        self._ranges = [_shard_range(metadata.row_group(group)) for group in range(metadata.num_row_groups)]
        self._groups: OrderedDict[int, pa.Table] = OrderedDict()

    def items(self, shard: int) -> list[PlannedItem]:
        groups = [at for at, (first, last) in enumerate(self._ranges) if first <= shard <= last]
        found = [item for group in groups for item in self._items_of(self._group(group), shard)]
        rows = [item.row for item in found]
        if not found or rows != list(range(rows[0], rows[0] + len(rows))):
            raise _broken(self._part.key, f"the rows of shard {shard} are missing or out of order")
        return found

    def sizes(self) -> dict[int, int]:
        return dict(Counter(self._read(None, ["shard"])["shard"].to_pylist()))

    def all_items(self) -> Iterator[tuple[int, PlannedItem]]:
        for group in range(len(self._ranges)):
            table = self._read(group, None)
            yield from zip(table["shard"].to_pylist(), _items(table), strict=True)

    def _group(self, group: int) -> pa.Table:
        if group not in self._groups:
            self._groups[group] = self._read(group, None)
            if len(self._groups) > GROUPS_KEPT:
                self._groups.popitem(last=False)
        return self._groups[group]

    def _items_of(self, table: pa.Table, shard: int) -> list[PlannedItem]:
        shards = table["shard"].to_numpy()
        start, end = shards.searchsorted(shard, "left"), shards.searchsorted(shard, "right")
        return _items(table.slice(start, end - start))

    def _read(self, group: int | None, columns: list[str] | None) -> pa.Table:
        try:
            if group is None:
                return self._file.read(columns=columns)
            return self._file.read_row_group(group, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise _broken(self._part.key, str(error)) from error


def _items(table: pa.Table) -> list[PlannedItem]:
    rows = zip(*(table[name].to_pylist() for name in PLAN_SCHEMA.names[1:]), strict=True)
    return [
        PlannedItem(
            row=row,
            id=item_id,
            uri=uri,
            page=page,
            size_bytes=size,
            version=version,
            earlier_version=earlier,
            columns=decode_columns(columns),
            failure=None if kind is None else ItemFailure(kind, message or ""),
            input=decode_columns(given),
        )
        for row, item_id, uri, page, size, version, earlier, kind, message, columns, given in rows
    ]


def _shard_range(group: pq.RowGroupMetaData) -> tuple[int, int]:
    statistics = group.column(0).statistics
    return statistics.min, statistics.max


def _broken(key: str, reason: str) -> IntegrityError:
    return IntegrityError(
        f"{key} is not the plan's table: {reason[:200]}",
        advice="the output was damaged; give the run up and plan again",
    )
